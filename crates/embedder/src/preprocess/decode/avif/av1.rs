//! One picture of AV1, by dav1d, which is written in C.

#![expect(unsafe_code, reason = "the decoder is written in C")]

use std::ffi::{c_int, c_uint};
use std::io;
use std::mem::MaybeUninit;
use std::ptr;
use std::slice;

use libdav1d_sys::{
    Dav1dContext, Dav1dData, Dav1dPicture, Dav1dPixelLayout, Dav1dSequenceHeader, Dav1dSettings,
    dav1d_close, dav1d_data_create, dav1d_data_unref, dav1d_default_settings, dav1d_get_picture,
    dav1d_open, dav1d_parse_sequence_header, dav1d_picture_unref, dav1d_send_data,
};

use super::{FORMAT, Options, corrupt};
use crate::preprocess::Fault;

/// A decoded picture.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) bits: u32,
    /// How many pixels across, and down, share a sample of colour; `None` of grey.
    pub(super) sharing: Option<(usize, usize)>,
    /// How colour was taken apart: a number of ITU-T H.273, section 8.3.
    pub(super) matrix: u32,
    /// Whether black is 0, not 16 of 256.
    pub(super) is_full_range: bool,
    /// Brightness, and two of colour.
    pub(super) planes: [Vec<u16>; 3],
}

/// A decoder, closed when it is dropped.
struct Decoder(*mut Dav1dContext);

/// Data on their way into a decoder.
struct Data(Dav1dData);

/// A picture of the decoder's, released when it is dropped.
struct Picture(Dav1dPicture);

/// Decodes the first picture of a stream.
pub(super) fn decode(coded: &[u8], options: &Options<'_>) -> Result<Frame, Fault> {
    let (width, height) = size(coded)?;
    options.check_size(FORMAT, width, height)?;
    let decoder = Decoder::open(options.max_pixels)?;
    let picture = decoder.picture(&mut Data::new(coded)?)?;
    let frame = picture.frame()?;
    options.check_size(FORMAT, frame.width, frame.height)?;
    Ok(frame)
}

/// The largest size in the stream's header.
fn size(coded: &[u8]) -> Result<(u32, u32), Fault> {
    let mut header = MaybeUninit::<Dav1dSequenceHeader>::zeroed();
    // SAFETY: reads as many bytes as there are, and writes a header where there is room for one.
    let result =
        unsafe { dav1d_parse_sequence_header(header.as_mut_ptr(), coded.as_ptr(), coded.len()) };
    check(result)?;
    let header = header.as_ptr();
    // SAFETY: written, since the call has succeeded. The header as a whole is left alone: it has
    // enumerations, and the file may name a value that they don't.
    let (width, height) = unsafe { ((*header).max_width, (*header).max_height) };
    // At most 16 bits each.
    Ok((width as u32, height as u32))
}

// === impl Decoder ===

impl Decoder {
    fn open(max_pixels: u64) -> Result<Self, Fault> {
        let mut settings = MaybeUninit::<Dav1dSettings>::zeroed();
        // SAFETY: the call writes all of them.
        let mut settings = unsafe {
            dav1d_default_settings(settings.as_mut_ptr());
            settings.assume_init()
        };
        // The pool has threads enough.
        settings.n_threads = 1;
        settings.max_frame_delay = 1;
        settings.all_layers = 0;
        settings.frame_size_limit = c_uint::try_from(max_pixels).unwrap_or(c_uint::MAX);
        // What is wrong with a stranger's file is told to the stranger.
        settings.logger.callback = None;
        let mut context = ptr::null_mut();
        // SAFETY: the settings are whole, and the context may be written to.
        check(unsafe { dav1d_open(&mut context, &settings) })?;
        Ok(Self(context))
    }

    /// Feeds data until a picture comes out.
    fn picture(&self, data: &mut Data) -> Result<Picture, Fault> {
        loop {
            let is_fed = data.0.sz == 0;
            if !is_fed {
                // SAFETY: the decoder is open, and the data were made for it.
                let sent = unsafe { dav1d_send_data(self.0, &mut data.0) };
                if !wants_more(sent) {
                    check(sent)?;
                }
            }
            // SAFETY: no pointer of it points anywhere, and no number means anything else.
            let mut picture = Picture(unsafe { MaybeUninit::zeroed().assume_init() });
            // SAFETY: the decoder is open, and an empty picture may be written to.
            let got = unsafe { dav1d_get_picture(self.0, &mut picture.0) };
            if !wants_more(got) {
                return check(got).map(|()| picture);
            }
            if is_fed {
                return Err(corrupt("it ends early".to_owned()));
            }
        }
    }
}

impl Drop for Decoder {
    fn drop(&mut self) {
        // SAFETY: it is open, and nobody uses it any more.
        unsafe { dav1d_close(&mut self.0) };
    }
}

// === impl Data ===

impl Data {
    fn new(coded: &[u8]) -> Result<Self, Fault> {
        // SAFETY: no pointer of them points anywhere.
        let mut data = Self(unsafe { MaybeUninit::zeroed().assume_init() });
        // SAFETY: empty data may be written to.
        let room = unsafe { dav1d_data_create(&mut data.0, coded.len()) };
        if room.is_null() {
            return Err(corrupt("there is no memory for its data".to_owned()));
        }
        // SAFETY: the room is new and as long as the data.
        unsafe { room.copy_from_nonoverlapping(coded.as_ptr(), coded.len()) };
        Ok(data)
    }
}

impl Drop for Data {
    fn drop(&mut self) {
        // SAFETY: whatever is left of them belongs to us.
        unsafe { dav1d_data_unref(&mut self.0) };
    }
}

// === impl Picture ===

impl Picture {
    /// Copies the picture out of the decoder's memory.
    fn frame(&self) -> Result<Frame, Fault> {
        let picture = &self.0;
        let header = picture.seq_hdr;
        if header.is_null() {
            return Err(corrupt("it has no header".to_owned()));
        }
        // SAFETY: the picture holds its header. The matrix is read as a number: the file may name
        // one that the enumeration doesn't.
        let (matrix, range) =
            unsafe { (ptr::addr_of!((*header).mtrx).cast::<u32>().read(), (*header).color_range) };
        let sharing = match picture.p.layout {
            Dav1dPixelLayout::DAV1D_PIXEL_LAYOUT_I400 => None,
            Dav1dPixelLayout::DAV1D_PIXEL_LAYOUT_I420 => Some((2, 2)),
            Dav1dPixelLayout::DAV1D_PIXEL_LAYOUT_I422 => Some((2, 1)),
            Dav1dPixelLayout::DAV1D_PIXEL_LAYOUT_I444 | _ => Some((1, 1)),
        };
        // Neither is negative, nor are the bits.
        let (width, height) = (picture.p.w as usize, picture.p.h as usize);
        let mut planes = [const { Vec::new() }; 3];
        planes[0] = self.plane(0, width, height);
        if let Some((across, down)) = sharing {
            let (width, height) = (width.div_ceil(across), height.div_ceil(down));
            planes[1] = self.plane(1, width, height);
            planes[2] = self.plane(2, width, height);
        }
        Ok(Frame {
            width: width as u32,
            height: height as u32,
            bits: picture.p.bpc as u32,
            sharing,
            matrix,
            is_full_range: range != 0,
            planes,
        })
    }

    /// Copies one plane: of a fault of the decoder's, nothing.
    fn plane(&self, index: usize, width: usize, height: usize) -> Vec<u16> {
        let mut samples = Vec::with_capacity(width * height);
        let start = self.0.data[index];
        if start.is_null() {
            return samples;
        }
        let stride = self.0.stride[index.min(1)];
        for row in 0..height {
            // SAFETY: a plane has `height` rows, `stride` bytes apart, of at least `width` samples
            // each: one byte of 8 bits, two aligned ones of more.
            unsafe {
                let line = start.cast::<u8>().offset(row as isize * stride);
                if self.0.p.bpc == 8 {
                    let line = slice::from_raw_parts(line, width);
                    samples.extend(line.iter().map(|&sample| u16::from(sample)));
                } else {
                    samples.extend_from_slice(slice::from_raw_parts(line.cast(), width));
                }
            }
        }
        samples
    }
}

impl Drop for Picture {
    fn drop(&mut self) {
        // SAFETY: empty, or a picture that is ours.
        unsafe { dav1d_picture_unref(&mut self.0) };
    }
}

/// Whether the decoder has no picture yet, or no room for data before its picture is taken.
fn wants_more(result: c_int) -> bool {
    // The system's number for it, made negative.
    result < 0 && io::Error::from_raw_os_error(-result).kind() == io::ErrorKind::WouldBlock
}

fn check(result: c_int) -> Result<(), Fault> {
    if result < 0 {
        return Err(corrupt(format!("its AV1 data are damaged (error {})", -result)));
    }
    Ok(())
}
