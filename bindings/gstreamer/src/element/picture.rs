//! Buffers as pictures, and back.

use gstreamer as gst;
use gstreamer_video as gst_video;
use gstreamer_video::prelude::*;
use sphereface::media::{Colorimetry, Matrix, Picture};

/// Formats that are 4:2:0 with 8 bits; anything else is for `videoconvert`.
pub const FORMATS: [gst_video::VideoFormat; 3] =
    [gst_video::VideoFormat::I420, gst_video::VideoFormat::Yv12, gst_video::VideoFormat::Nv12];

/// Copies a buffer into a picture; `None` if the buffer does not match its caps.
pub fn read(buffer: &gst::BufferRef, info: &gst_video::VideoInfo) -> Option<Picture> {
    let frame = gst_video::VideoFrameRef::from_buffer_ref_readable(buffer, info).ok()?;
    let (width, height) = (frame.width() as usize, frame.height() as usize);
    let mut data = Vec::with_capacity(Picture::len_bytes(width, height));
    for component in 0..3 {
        let (width, height) = (frame.comp_width(component) as usize, frame.comp_height(component) as usize);
        let bytes = frame.comp_data(component).ok()?;
        let stride = usize::try_from(frame.comp_stride(component)).ok()?;
        let step = usize::try_from(frame.comp_pstride(component)).ok()?.max(1);
        for row in 0..height {
            let row = bytes.get(row * stride..)?.get(..(width - 1) * step + 1)?;
            match step {
                1 => data.extend_from_slice(row),
                _ => data.extend(row.iter().step_by(step)),
            }
        }
    }
    Picture::from_i420(data, width, height, colorimetry(info))
}

/// Copies a picture back into its buffer; `None` if the buffer is not writable.
pub fn write(picture: &Picture, buffer: &mut gst::BufferRef, info: &gst_video::VideoInfo) -> Option<()> {
    let mut frame = gst_video::VideoFrameRef::from_buffer_ref_writable(buffer, info).ok()?;
    for (component, plane) in (0u32..).zip(picture.planes()) {
        let width = frame.comp_width(component) as usize;
        let stride = usize::try_from(frame.comp_stride(component)).ok()?;
        let step = usize::try_from(frame.comp_pstride(component)).ok()?.max(1);
        let bytes = frame.comp_data_mut(component).ok()?;
        for (row, from) in plane.chunks_exact(width).enumerate() {
            let to = bytes.get_mut(row * stride..)?;
            match step {
                1 => to.get_mut(..width)?.copy_from_slice(from),
                _ => to.iter_mut().step_by(step).zip(from).for_each(|(to, from)| *to = *from),
            }
        }
    }
    Some(())
}

/// The colour space of the caps; an unknown matrix is guessed from the height, as players do.
fn colorimetry(info: &gst_video::VideoInfo) -> Colorimetry {
    use gst_video::VideoColorMatrix as M;
    let matrix = match info.colorimetry().matrix() {
        M::Bt601 | M::Fcc => Matrix::Bt601,
        M::Bt709 | M::Smpte240m => Matrix::Bt709,
        M::Bt2020 => Matrix::Bt2020,
        _ if info.height() > 576 => Matrix::Bt709,
        _ => Matrix::Bt601,
    };
    let full_range = info.colorimetry().range() == gst_video::VideoColorRange::Range0_255;
    Colorimetry { matrix, full_range }
}
