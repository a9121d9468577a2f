//! JPEG by libjpeg-turbo, which is what the reference decodes with. Decoders differ by several
//! levels in how they bring colour to full size where it is stored at half of it.

use turbojpeg::{Colorspace, Decompressor, Image, PixelFormat};

use crate::preprocess::Rgb;

const CHANNELS: usize = 3;

/// A progressive JPEG may refine a picture in as many scans as it likes, each of which costs time
/// for every pixel. Encoders write some ten.
const MAX_SCANS: u32 = 100;

/// Decodes a JPEG of the size that its header says. `None` for what another decoder must judge:
/// CMYK, which is not turned into RGB here, and files with the smallest fault, since here a
/// warning is an error.
pub(super) fn rgb(bytes: &[u8], width: u32, height: u32) -> Option<Rgb> {
    let mut decompressor = Decompressor::new().ok()?;
    decompressor.set_scan_limit(MAX_SCANS).ok()?;
    let header = decompressor.read_header(bytes).ok()?;
    let is_rgb = match header.colorspace {
        Colorspace::RGB | Colorspace::YCbCr | Colorspace::Gray => true,
        Colorspace::CMYK | Colorspace::YCCK => false,
    };
    let (columns, rows) = (width as usize, height as usize);
    if !is_rgb || (header.width, header.height) != (columns, rows) {
        return None;
    }
    let pitch = CHANNELS * columns;
    let mut levels = vec![0; pitch * rows];
    let pixels = levels.as_mut_slice();
    let image = Image { pixels, width: columns, pitch, height: rows, format: PixelFormat::RGB };
    decompressor.decompress(bytes, image).ok()?;
    Some(Rgb { width, height, levels })
}
