//! The way a camera was held: EXIF's orientation, 1 to 8.

use image::metadata;

use super::Rgb;

/// How to turn a stored picture upright: first swap rows and columns, then mirror.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Orientation {
    pub(super) transposes: bool,
    /// Left becomes right.
    pub(super) mirrors_across: bool,
    /// Top becomes bottom.
    pub(super) mirrors_down: bool,
}

impl Orientation {
    /// Width and height of a stored picture once it is upright.
    pub(super) fn upright_size(self, width: u32, height: u32) -> (u32, u32) {
        if self.transposes { (height, width) } else { (width, height) }
    }
}

impl From<metadata::Orientation> for Orientation {
    fn from(orientation: metadata::Orientation) -> Self {
        let (transposes, mirrors_across, mirrors_down) = match orientation {
            metadata::Orientation::NoTransforms => (false, false, false),
            metadata::Orientation::FlipHorizontal => (false, true, false),
            metadata::Orientation::Rotate180 => (false, true, true),
            metadata::Orientation::FlipVertical => (false, false, true),
            metadata::Orientation::Rotate90FlipH => (true, false, false),
            metadata::Orientation::Rotate90 => (true, true, false),
            metadata::Orientation::Rotate270FlipH => (true, true, true),
            metadata::Orientation::Rotate270 => (true, false, true),
        };
        Self { transposes, mirrors_across, mirrors_down }
    }
}

/// Turns a picture upright.
pub(super) fn turn(stored: Rgb, orientation: Orientation) -> Rgb {
    if orientation == Orientation::default() {
        return stored;
    }
    let (width, height) = orientation.upright_size(stored.width, stored.height);
    let mut levels = Vec::with_capacity(stored.levels.len());
    for row in 0..height {
        for column in 0..width {
            let across = if orientation.mirrors_across { width - 1 - column } else { column };
            let down = if orientation.mirrors_down { height - 1 - row } else { row };
            let (x, y) = if orientation.transposes { (down, across) } else { (across, down) };
            let at = 3 * (y as usize * stored.width as usize + x as usize);
            levels.extend_from_slice(&stored.levels[at..at + 3]);
        }
    }
    Rgb { width, height, levels }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Turns a picture of one row, `a b c`, above `d e f`; a letter per pixel.
    fn turned(exif: u8) -> String {
        let levels = b"abcdef".iter().flat_map(|&letter| [letter; 3]).collect();
        let orientation = metadata::Orientation::from_exif(exif).expect("1 to 8");
        let upright = turn(Rgb { width: 3, height: 2, levels }, orientation.into());
        let letters: Vec<u8> = upright.levels.chunks(3).map(|pixel| pixel[0]).collect();
        let rows = letters.chunks(upright.width as usize).map(String::from_utf8_lossy);
        rows.collect::<Vec<_>>().join("/")
    }

    #[test]
    fn turns_all_eight_ways_of_the_standard() {
        // Where the first row and the first column of the stored picture belong (EXIF 2.32,
        // tag 0x0112): 6 says "the first row is the right side, the first column is the top".
        for (exif, expected) in [
            (1, "abc/def"),
            (2, "cba/fed"),
            (3, "fed/cba"),
            (4, "def/abc"),
            (5, "ad/be/cf"),
            (6, "da/eb/fc"),
            (7, "fc/eb/da"),
            (8, "cf/be/ad"),
        ] {
            assert_eq!(turned(exif), expected, "orientation {exif}");
        }
    }
}
