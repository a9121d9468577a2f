//! Resizes and crops as the reference does (Pillow's antialiased filters on whole levels, Hugging
//! Face's rules for sizes and offsets), to within one level.
//!
//! Only the part that the crop keeps is computed. So a strip of 1 x 8,000,000 pixels, whose short
//! edge would be blown up to the model's size and the long one with it, costs no more than any
//! other picture.

use std::ops::Range;

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};

use super::orient::Orientation;
use super::{Rgb, scratch};
use crate::model::{Filter, Preprocessing, Resize};

/// How far the widest filter (Lanczos) reaches, in pixels of the coarser side.
const WIDEST_SUPPORT: f64 = 3.0;

/// What becomes of an upright picture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Plan {
    across: Axis,
    down: Axis,
    /// The size that comes out.
    output: (u32, u32),
}

/// One direction of a picture: it is resized from `source` to `resized` pixels, of which `length`
/// are kept from `start` on.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Axis {
    source: u32,
    /// How many of the source's pixels the picture really covers: of one that was shrunk while it
    /// was decoded, the last pixel may be a part of one.
    extent: f64,
    /// Of a long strip, more than 32 bits can count.
    resized: u64,
    start: u64,
    length: u32,
}

/// A stretch of the source that becomes `pixels` pixels.
#[derive(Clone, Copy, Debug)]
struct Span {
    start: f64,
    length: f64,
    pixels: u32,
}

/// What a pass is to resize: the lines that run in its direction, and a stretch of them.
#[derive(Clone, Debug)]
struct Part {
    span: Span,
    lines: Range<u32>,
}

/// Which direction a pass works in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Across,
    Down,
}

/// Resizes in one direction at a time.
struct Scaler {
    resizer: Resizer,
    options: ResizeOptions,
}

// === impl Plan ===

impl Plan {
    /// For an upright picture of `width` x `height`, neither zero.
    pub(super) fn new((width, height): (u32, u32), preprocessing: &Preprocessing) -> Self {
        let (resized_width, resized_height) = resized((width, height), preprocessing);
        let crop = preprocessing.crop;
        let across = Axis::new(width, resized_width, crop);
        let down = Axis::new(height, resized_height, crop);
        let output = crop.map_or((across.length, down.length), |edge| (edge, edge));
        Self { across, down, output }
    }

    /// The same for a picture of which only a shrunk form is there: by `factor`, and then rounded
    /// up to this size.
    pub(super) fn of_shrunk(self, (width, height): (u32, u32), factor: f64) -> Self {
        let (across, down) = (self.across.shrunk(width, factor), self.down.shrunk(height, factor));
        Self { across, down, ..self }
    }

    /// Lays a picture that is smaller than the output into the middle of black.
    pub(super) fn fill(&self, picture: Rgb) -> Rgb {
        let (width, height) = self.output;
        if (picture.width, picture.height) == self.output {
            return picture;
        }
        // The reference gives the odd pixel to the left and the top.
        let left = (width - picture.width).div_ceil(2) as usize;
        let top = (height - picture.height).div_ceil(2) as usize;
        let mut levels = vec![0; 3 * width as usize * height as usize];
        let rows = picture.levels.chunks_exact(3 * picture.width as usize);
        for (row, pixels) in (top..).zip(rows) {
            let at = 3 * (row * width as usize + left);
            levels[at..at + pixels.len()].copy_from_slice(pixels);
        }
        Rgb { width, height, levels }
    }
}

/// Computes the part of the resized picture that the plan keeps. The picture is as it is stored,
/// and so is what comes back: the orientation only says which directions the plan means.
pub(super) fn window(stored: &Rgb, orientation: Orientation, plan: &Plan, filter: Filter) -> Rgb {
    let across = plan.across.mirrored(orientation.mirrors_across);
    let down = plan.down.mirrored(orientation.mirrors_down);
    // The reference goes across an upright picture first. Levels are rounded and clipped between
    // the passes, so their order shows at hard edges.
    let (first, second) = match orientation.transposes {
        true => (Direction::Down, Direction::Across),
        false => (Direction::Across, Direction::Down),
    };
    let mut scaler = Scaler::new(filter);
    let lines = down.needed();
    let part = Part { span: across.span(), lines: lines.clone() };
    let narrow = scaler.pass(stored, first, part, scratch::take);
    let part = Part { span: down.span().within(&lines), lines: 0..across.length };
    // What waits for the device should take no more room than it needs.
    let small = scaler.pass(&narrow, second, part, |len| vec![0; len]);
    scratch::give_back(narrow.levels);
    small
}

// === impl Scaler ===

impl Scaler {
    fn new(filter: Filter) -> Self {
        let filter = match filter {
            Filter::Lanczos => FilterType::Lanczos3,
            Filter::Bilinear => FilterType::Bilinear,
            // Its parameter is -0.5, as Pillow's.
            Filter::Bicubic => FilterType::CatmullRom,
        };
        let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(filter));
        Self { resizer: Resizer::new(), options }
    }

    /// Resizes a part of the picture, into the room that it is given.
    fn pass(
        &mut self,
        picture: &Rgb,
        direction: Direction,
        Part { span, lines }: Part,
        room: impl FnOnce(usize) -> Vec<u8>,
    ) -> Rgb {
        let count = lines.end - lines.start;
        let (first_line, line_count) = (f64::from(lines.start), f64::from(count));
        let (width, height, options) = match direction {
            Direction::Across => {
                let options = self.options.crop(span.start, first_line, span.length, line_count);
                (span.pixels, count, options)
            }
            Direction::Down => {
                let options = self.options.crop(first_line, span.start, line_count, span.length);
                (count, span.pixels, options)
            }
        };
        let source = ImageRef::new(picture.width, picture.height, &picture.levels, PixelType::U8x3)
            .expect("a picture has three bytes per pixel");
        let mut levels = room(3 * width as usize * height as usize);
        let mut target = Image::from_slice_u8(width, height, &mut levels, PixelType::U8x3)
            .expect("so many bytes it has");
        self.resizer
            .resize(&source, &mut target, &options)
            .expect("both are RGB, and span and lines lie within the picture");
        Rgb { width, height, levels }
    }
}

// === impl Axis ===

impl Axis {
    fn new(source: u32, resized: u64, crop: Option<u32>) -> Self {
        let kept = crop.map_or(resized, |edge| resized.min(edge.into()));
        // Without a crop, the size is one of the settings, which are small.
        let length = u32::try_from(kept).expect("a model's input has a 32-bit size");
        Self { source, extent: source.into(), resized, start: (resized - kept) / 2, length }
    }

    /// The same part of a source that was shrunk by `factor` to `source` pixels.
    fn shrunk(self, source: u32, factor: f64) -> Self {
        let extent = (self.extent * factor).min(source.into());
        Self { source, extent, ..self }
    }

    /// The same part, seen from the other end.
    fn mirrored(self, is_mirrored: bool) -> Self {
        let behind = self.resized - self.start - u64::from(self.length);
        Self { start: if is_mirrored { behind } else { self.start }, ..self }
    }

    /// Source pixels per resized pixel.
    fn scale(&self) -> f64 {
        self.extent / self.resized as f64
    }

    /// Where the kept part lies in the source.
    fn span(&self) -> Span {
        let (start, length) =
            (self.start as f64 * self.scale(), f64::from(self.length) * self.scale());
        Span { start, length, pixels: self.length }.bounded(self.source)
    }

    /// The source pixels that the kept part is made of, those that a filter reaches included.
    fn needed(&self) -> Range<u32> {
        let Span { start, length, .. } = self.span();
        let reach = WIDEST_SUPPORT * self.scale().max(1.0) + 1.0;
        let first = (start - reach).floor().max(0.0) as u32;
        let last = (start + length + reach).ceil().min(f64::from(self.source)) as u32;
        first..last
    }
}

// === impl Span ===

impl Span {
    /// The same stretch of a source of which only `lines` are there.
    fn within(self, lines: &Range<u32>) -> Self {
        let start = self.start - f64::from(lines.start);
        Self { start, ..self }.bounded(lines.end - lines.start)
    }

    /// Rounding must not lead out of the picture.
    fn bounded(self, source: u32) -> Self {
        Self { length: self.length.min(f64::from(source) - self.start), ..self }
    }
}

/// How much smaller the resized picture is, in the direction in which it is less.
pub(super) fn scale((width, height): (u32, u32), preprocessing: &Preprocessing) -> f64 {
    let (resized_width, resized_height) = resized((width, height), preprocessing);
    let across = resized_width as f64 / f64::from(width);
    across.max(resized_height as f64 / f64::from(height))
}

/// The whole of a picture, at another size.
pub(super) fn shrunk(picture: &Rgb, width: u32, height: u32) -> Rgb {
    let options = Scaler::new(Filter::Bilinear).options;
    let source = ImageRef::new(picture.width, picture.height, &picture.levels, PixelType::U8x3)
        .expect("a picture has three bytes per pixel");
    let mut target = Image::new(width, height, PixelType::U8x3);
    Resizer::new().resize(&source, &mut target, &options).expect("both are RGB");
    Rgb { width, height, levels: target.into_vec() }
}

/// The size before the crop.
fn resized((width, height): (u32, u32), preprocessing: &Preprocessing) -> (u64, u64) {
    match preprocessing.resize {
        Resize::Exact { width, height } => (width.into(), height.into()),
        Resize::ShortestEdge(edge) if width <= height => (edge.into(), scaled(height, edge, width)),
        Resize::ShortestEdge(edge) => (scaled(width, edge, height), edge.into()),
    }
}

/// How long the long edge becomes when the short one becomes `edge`; what is left of a pixel is
/// dropped, as the reference does.
fn scaled(long: u32, edge: u32, short: u32) -> u64 {
    u64::from(long) * u64::from(edge) / u64::from(short)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Normalisation;

    fn preprocessing(resize: Resize, crop: Option<u32>) -> Preprocessing {
        let normalisation = Normalisation { scale: [1.0; 3], offset: [0.0; 3] };
        Preprocessing { resize, filter: Filter::Bicubic, crop, normalisation, jpeg_scaling: false }
    }

    fn plan(width: u32, height: u32, edge: u32, crop: u32) -> Plan {
        Plan::new((width, height), &preprocessing(Resize::ShortestEdge(edge), Some(crop)))
    }

    /// Levels that tell rows, columns and channels apart.
    fn ramp(width: u32, height: u32) -> Rgb {
        let level = |x: u32, y: u32| [(x * 255 / width) as u8, (y * 255 / height) as u8, 90];
        let levels = (0..height).flat_map(|y| (0..width).flat_map(move |x| level(x, y))).collect();
        Rgb { width, height, levels }
    }

    fn run(picture: &Rgb, plan: &Plan) -> Rgb {
        plan.fill(window(picture, Orientation::default(), plan, Filter::Bicubic))
    }

    #[test]
    fn the_short_edge_decides_and_the_middle_is_kept() {
        let Plan { across, down, output } = plan(101, 40, 20, 20);
        assert_eq!((across.resized, down.resized), (50, 20), "50.5 becomes 50");
        assert_eq!((across.start, across.length), (15, 20), "the middle of 50");
        assert_eq!(output, (20, 20), "the crop");
        let Plan { across, down, .. } = plan(40, 101, 20, 20);
        assert_eq!((across.resized, down.resized, down.start), (20, 50, 15), "upright as well");
    }

    #[test]
    fn a_part_is_the_same_as_that_part_of_the_whole() {
        let picture = ramp(97, 41);
        let whole = run(
            &picture,
            &Plan::new((97, 41), &preprocessing(Resize::Exact { width: 47, height: 20 }, None)),
        );
        let part = run(&picture, &plan(97, 41, 20, 20));
        for (row, pixels) in part.levels.chunks(60).enumerate() {
            let at = 3 * (row * 47 + 13);
            assert_eq!(pixels, &whole.levels[at..at + 60], "row {row}");
        }
    }

    #[test]
    fn one_pixel_fills_the_input() {
        let picture = Rgb { width: 1, height: 1, levels: vec![10, 20, 30] };
        assert_eq!(run(&picture, &plan(1, 1, 8, 8)).levels, [10, 20, 30].repeat(64), "one colour");
    }

    #[test]
    fn long_strips_cost_no_memory() {
        for (width, height) in [(2_000_000, 1), (1, 2_000_000), (4_000_000, 2)] {
            let picture = Rgb { width, height, levels: vec![77; 3 * (width * height) as usize] };
            let small = run(&picture, &plan(width, height, 224, 224));
            assert_eq!(small.levels, vec![77; 3 * 224 * 224], "{width} x {height}");
        }
    }

    #[test]
    fn what_is_smaller_than_the_crop_gets_a_black_border() {
        let picture = Rgb { width: 3, height: 3, levels: vec![200; 27] };
        let framed = run(&picture, &plan(3, 3, 3, 6));
        let bright: Vec<usize> = (0..36).filter(|i| framed.levels[3 * i] == 200).collect();
        assert_eq!(bright, [14, 15, 16, 20, 21, 22, 26, 27, 28], "the odd pixel is left and above");
    }

    #[test]
    fn a_turned_picture_becomes_what_the_upright_one_becomes() {
        let upright = ramp(90, 50);
        let expected = run(&upright, &plan(90, 50, 16, 12));
        for exif in 1..=8 {
            let orientation = image::metadata::Orientation::from_exif(exif).expect("1 to 8").into();
            let stored = undo(&upright, orientation);
            let plan = plan(90, 50, 16, 12);
            let small = window(&stored, orientation, &plan, Filter::Bicubic);
            let turned = super::super::orient::turn(small, orientation);
            let distance =
                turned.levels.iter().zip(&expected.levels).map(|(a, b)| a.abs_diff(*b)).max();
            assert!(distance <= Some(1), "orientation {exif}: {distance:?} levels");
        }
    }

    /// The stored form of an upright picture: mirrors first, then swaps.
    fn undo(upright: &Rgb, orientation: Orientation) -> Rgb {
        let mirrored = Orientation { transposes: false, ..orientation };
        let swapped = Orientation { transposes: orientation.transposes, ..Orientation::default() };
        let mirrored = super::super::orient::turn(upright.clone(), mirrored);
        super::super::orient::turn(mirrored, swapped)
    }
}
