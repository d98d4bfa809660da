//! Decodes the pictures of a HEIF file with GStreamer.

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use gstreamer_video as gst_video;
use gstreamer_video::{VideoColorMatrix, VideoColorPrimaries, VideoColorRange, VideoColorimetry};
use gstreamer_video::{VideoFrameExt, VideoTransferFunction};
use image::RgbImage;

use super::heif::{Coding, Main};
use super::pads::copy_pictures_of;
use super::{element, error_text, start_gstreamer};

/// How long a decoder may take for one coded picture.
const LIMIT: gst::ClockTime = gst::ClockTime::from_seconds(20);

impl Coding {
    /// Decoders, best first.
    fn decoders(self) -> &'static [&'static str] {
        match self {
            Self::Hevc => &["avdec_h265", "libde265dec", "vah265dec", "nvh265dec"],
            Self::Av1 => &["dav1ddec", "av1dec", "vaav1dec", "nvav1dec"],
        }
    }

    /// The Debian package with a decoder.
    pub(super) fn package(self) -> &'static str {
        match self {
            Self::Hevc => "gstreamer1.0-libav",
            Self::Av1 => "gstreamer1.0-plugins-bad",
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Hevc => "HEIC",
            Self::Av1 => "AVIF",
        }
    }

    fn caps(self, configuration: &[u8]) -> gst::Caps {
        let configuration = gst::Buffer::from_slice(configuration.to_vec());
        let caps = match self {
            Self::Hevc => {
                gst::Caps::builder("video/x-h265").field("stream-format", "hvc1").field("alignment", "au")
            }
            Self::Av1 => gst::Caps::builder("video/x-av1")
                .field("stream-format", "obu-stream")
                .field("alignment", "tu"),
        };
        caps.field("codec_data", configuration).build()
    }

    fn parser(self) -> &'static str {
        match self {
            Self::Hevc => "h265parse",
            Self::Av1 => "av1parse",
        }
    }
}

/// Why there is no picture.
#[derive(Debug)]
pub(super) enum Failure {
    /// No decoder is installed.
    NoDecoder,
    /// The error of the last decoder.
    Refused(String),
}

/// The main picture, upright.
pub(super) fn decode(main: &Main) -> Result<RgbImage, Failure> {
    start_gstreamer().map_err(|error| Failure::Refused(error.to_string()))?;
    let mut failure = Failure::NoDecoder;
    for name in main.coding.decoders() {
        let Ok(decoder) = element(name) else { continue };
        match tiles(main, decoder) {
            Ok(canvas) => return Ok(main.upright(canvas)),
            Err(reason) => failure = Failure::Refused(reason),
        }
    }
    Err(failure)
}

/// All coded pictures through one decoder, onto one canvas.
fn tiles(main: &Main, decoder: gst::Element) -> Result<RgbImage, String> {
    let pipeline = gst::Pipeline::new();
    let caps = main.coding.caps(&main.configuration);
    let source = gst_app::AppSrc::builder().caps(&caps).format(gst::Format::Time).max_bytes(0).build();
    let wanted = gst::Caps::builder("video/x-raw").field("format", "RGB").build();
    let sink = gst_app::AppSink::builder().sync(false).max_buffers(2).caps(&wanted).build();
    let mut elements = vec![source.clone().upcast::<gst::Element>()];
    let missing = |error: super::MediaError| error.to_string();
    elements.push(element(main.coding.parser()).map_err(missing)?);
    let convert = element("videoconvert").map_err(missing)?;
    if let (Some(colour), Some(pad)) = (main.colour, convert.static_pad("sink")) {
        colour_as_told(&pad, colour);
    }
    copy_pictures_of(&decoder);
    elements.extend([decoder, convert, sink.clone().upcast()]);
    let failed = |_| "its decoder cannot be used".to_owned();
    pipeline.add_many(&elements).map_err(failed)?;
    gst::Element::link_many(&elements).map_err(failed)?;
    let result = run(&pipeline, &source, &sink, main);
    let _ = pipeline.set_state(gst::State::Null);
    result
}

fn run(
    pipeline: &gst::Pipeline,
    source: &gst_app::AppSrc,
    sink: &gst_app::AppSink,
    main: &Main,
) -> Result<RgbImage, String> {
    let bus = pipeline.bus().ok_or("its decoder has no message bus")?;
    let refused = || {
        let message = bus.pop_filtered(&[gst::MessageType::Error]);
        let text = message.and_then(|message| match message.view() {
            gst::MessageView::Error(error) => Some(error_text(error)),
            _ => None,
        });
        text.unwrap_or_else(|| "its decoder gives no picture".to_owned())
    };
    pipeline.set_state(gst::State::Playing).map_err(|_| refused())?;
    for (number, tile) in main.tiles.iter().enumerate() {
        let mut buffer = gst::Buffer::from_slice(tile.clone());
        buffer.make_mut().set_pts(gst::ClockTime::from_mseconds(40 * number as u64));
        source.push_buffer(buffer).map_err(|_| refused())?;
    }
    source.end_of_stream().map_err(|_| refused())?;
    let mut canvas = main.canvas();
    for number in 0..main.tiles.len() {
        let sample = sink.try_pull_sample(LIMIT).ok_or_else(refused)?;
        main.lay(&mut canvas, number, &picture(&sample).ok_or("its decoder gives no picture")?);
    }
    Ok(canvas)
}

fn picture(sample: &gst::Sample) -> Option<RgbImage> {
    let video = gst_video::VideoInfo::from_caps(sample.caps()?).ok()?;
    let frame = gst_video::VideoFrameRef::from_buffer_ref_readable(sample.buffer()?, &video).ok()?;
    let (width, height) = (frame.width() as usize, frame.height() as usize);
    let stride = usize::try_from(*frame.plane_stride().first()?).ok()?;
    let rows = frame.plane_data(0).ok()?;
    let mut pixels = Vec::with_capacity(width * height * 3);
    for row in 0..height {
        pixels.extend_from_slice(rows.get(row * stride..row * stride + width * 3)?);
    }
    RgbImage::from_raw(width as u32, height as u32, pixels)
}

/// The colour description of the file takes precedence over that of the stream.
fn colour_as_told(pad: &gst::Pad, [range, matrix, transfer, primaries]: [u16; 4]) {
    let range = if range == 1 { VideoColorRange::Range0_255 } else { VideoColorRange::Range16_235 };
    let told = VideoColorimetry::new(
        range,
        VideoColorMatrix::from_iso(matrix.into()),
        VideoTransferFunction::from_iso(transfer.into()),
        VideoColorPrimaries::from_iso(primaries.into()),
    );
    super::pads::on_caps(pad, move |caps| {
        let mut caps = caps.to_owned();
        caps.make_mut().structure_mut(0)?.set("colorimetry", told.to_string());
        Some(caps)
    });
}
