//! The choice of an encoder for video, and its settings.

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_video::{VideoColorMatrix, VideoColorRange, VideoColorimetry};

use super::{Colorimetry, Container, Matrix, MediaError, element, error_text};

/// Time limit of a working encoder for three frames.
const TRIAL_LIMIT: gst::ClockTime = gst::ClockTime::from_seconds(5);
/// The most frames between two key frames.
const KEY_FRAME_DISTANCE: u32 = 120;

/// The codec to write.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Codec {
    /// H.264 in MP4 and Matroska, VP8 in WebM.
    #[default]
    Auto,
    /// H.264.
    H264,
    /// VP8.
    Vp8,
    /// VP9.
    Vp9,
}

/// The encoding speed: slower gives smaller files of the same quality.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Speed {
    /// x264 superfast, libvpx cpu-used 8.
    #[default]
    Fast,
    /// x264 faster, libvpx cpu-used 5.
    Balanced,
    /// x264 medium, libvpx cpu-used 2.
    Slow,
}

/// How to write a video.
#[derive(Debug, Clone, Default)]
pub struct SinkOptions {
    /// The codec.
    pub codec: Codec,
    /// Constant quantizer, lower is better: 0..=51 for H.264 (23 when `None`), 0..=63 for VP8
    /// and VP9 (20 when `None`).
    pub quantizer: Option<u8>,
    /// The encoding speed.
    pub speed: Speed,
    /// GStreamer encoders to try, in this order, each an element or several joined by `!`; empty
    /// tries hardware encoders, then x264, openh264 or libvpx.
    pub encoders: Vec<String>,
}

/// A codec in a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum VideoCodec {
    H264,
    Vp8,
    Vp9,
}

impl VideoCodec {
    /// The codec that the options select for `container`.
    pub(super) fn choose(options: &SinkOptions, container: Container) -> Result<Self, MediaError> {
        let codec = match (options.codec, container) {
            (Codec::Auto, Container::WebM) | (Codec::Vp8, _) => Self::Vp8,
            (Codec::Auto | Codec::H264, _) => Self::H264,
            (Codec::Vp9, _) => Self::Vp9,
        };
        match (codec, container) {
            (Self::H264, Container::WebM) | (Self::Vp8, Container::Mp4) => {
                Err(MediaError::CodecNotInContainer { codec: codec.name(), container: container.name() })
            }
            _ => Ok(codec),
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::H264 => "H.264",
            Self::Vp8 => "VP8",
            Self::Vp9 => "VP9",
        }
    }

    /// Parser between encoder and muxer.
    pub(super) fn parser(self) -> Option<&'static str> {
        match self {
            Self::H264 => Some("h264parse"),
            Self::Vp8 => None,
            Self::Vp9 => Some("vp9parse"),
        }
    }

    /// The colorimetry for the codec, given that of the input: VP8 supports only BT.601 in limited range, and
    /// decoders assume it whatever the container says.
    pub(super) fn colours(self, come: Colorimetry) -> Colorimetry {
        match self {
            Self::Vp8 => Colorimetry { matrix: Matrix::Bt601, full_range: false },
            Self::H264 | Self::Vp9 => come,
        }
    }

    /// Caps with the colorimetry that the codec supports.
    pub(super) fn coloured(self, mut caps: gst::Caps) -> gst::Caps {
        let told = gstreamer_video::VideoInfo::from_caps(&caps).map(|video| video.colorimetry());
        if let (Self::Vp8, Ok(told)) = (self, told) {
            let (range, matrix) = (VideoColorRange::Range16_235, VideoColorMatrix::Bt601);
            let known = VideoColorimetry::new(range, matrix, told.transfer(), told.primaries());
            if let Some(structure) = caps.make_mut().structure_mut(0) {
                structure.set("colorimetry", known.to_string());
            }
        }
        caps
    }

    /// Whether both sides of the picture must be even.
    pub(super) fn needs_even_size(self) -> bool {
        self == Self::H264
    }

    /// The quantizer of the options, or the default.
    pub(super) fn quantizer(self, options: &SinkOptions) -> Result<u8, MediaError> {
        let (default, most) = if self == Self::H264 { (23, 51) } else { (20, 63) };
        match options.quantizer {
            Some(value) if value > most => Err(MediaError::BadSetting {
                name: "quantizer",
                value: value.to_string(),
                reason: format!("{} takes 0 (best) to {most}", self.name()),
            }),
            value => Ok(value.unwrap_or(default)),
        }
    }

    fn candidates(self) -> &'static [&'static str] {
        match self {
            Self::H264 => &[
                "nvh264enc",
                "vah264enc",
                "vaapih264enc",
                "qsvh264enc",
                "v4l2h264enc",
                "x264enc",
                "openh264enc",
            ],
            Self::Vp8 => &["vp8enc"],
            Self::Vp9 => &["vp9enc"],
        }
    }
}

/// The name of an encoder that encoded three frames of the real format.
#[derive(Debug, Clone)]
pub struct WorkingEncoder(pub(super) String);

impl WorkingEncoder {
    /// The first encoder that does.
    pub(super) fn find(
        codec: VideoCodec,
        options: &SinkOptions,
        caps: &gst::Caps,
    ) -> Result<Self, MediaError> {
        let built_in = codec.candidates().iter().map(|name| (*name).to_owned()).collect();
        let candidates: Vec<String> =
            if options.encoders.is_empty() { built_in } else { options.encoders.clone() };
        let mut tried = Vec::new();
        for name in candidates {
            match try_encoder(&name, codec, options, caps)? {
                Ok(()) => return Ok(Self(name)),
                Err(reason) => tried.push(format!("{name}: {reason}")),
            }
        }
        Err(MediaError::NoEncoder { codec: codec.name(), tried: tried.join("; ") })
    }
}

/// Encodes three frames; `Ok(Err(reason))` when the encoder does not work.
fn try_encoder(
    name: &str,
    codec: VideoCodec,
    options: &SinkOptions,
    caps: &gst::Caps,
) -> Result<Result<(), String>, MediaError> {
    let Ok(encoder) = build(name, codec, options, caps) else { return Ok(Err("not installed".to_owned())) };
    let pipeline = gst::Pipeline::new();
    let source = element("videotestsrc")?;
    source.set_property("num-buffers", 3i32);
    let filter = element("capsfilter")?;
    filter.set_property("caps", caps);
    let convert = element("videoconvert")?;
    let sink = element("fakesink")?;
    let elements = [&source, &filter, &convert, &encoder, &sink];
    if pipeline.add_many(elements).is_err() || gst::Element::link_many(elements).is_err() {
        return Ok(Err("does not take I420 video".to_owned()));
    }
    let result = run(&pipeline);
    let _ = pipeline.set_state(gst::State::Null);
    Ok(result)
}

fn run(pipeline: &gst::Pipeline) -> Result<(), String> {
    let bus = pipeline.bus().ok_or("has no message bus")?;
    let started = pipeline.set_state(gst::State::Playing);
    let wanted = [gst::MessageType::Eos, gst::MessageType::Error];
    let limit = if started.is_ok() { TRIAL_LIMIT } else { gst::ClockTime::ZERO };
    match bus.timed_pop_filtered(limit, &wanted) {
        Some(message) => match message.view() {
            gst::MessageView::Error(error) => Err(error_text(error)),
            _ => Ok(()),
        },
        None if started.is_err() => Err("does not start".to_owned()),
        None => Err(format!("gave nothing within {} s", TRIAL_LIMIT.seconds())),
    }
}

/// Builds an encoder (one element, or a description with `!`) with the options set.
pub(super) fn build(
    name: &str,
    codec: VideoCodec,
    options: &SinkOptions,
    caps: &gst::Caps,
) -> Result<gst::Element, MediaError> {
    if name.contains(['!', ' ']) {
        return gst::parse::bin_from_description(name, true)
            .map(gst::Bin::upcast)
            .map_err(|error| MediaError::MissingElement(format!("the encoder {name} ({error})")));
    }
    let encoder = element(name)?;
    let quantizer = codec.quantizer(options)?;
    let set = |property: &str, value: &str| {
        if let Some(spec) = encoder.find_property(property)
            && let Ok(value) = gst::glib::Value::deserialize_with_pspec(value, &spec)
        {
            encoder.set_property_from_value(property, &value);
        }
    };
    let q = quantizer.to_string();
    match name {
        "x264enc" => {
            set("pass", "quant");
            set("quantizer", &q);
            set("speed-preset", options.speed.of("superfast", "faster", "medium"));
            // The fast preset searches too little to gain from B-frames. Without them, moving pictures take
            // the same space or less, quiet ones and slow pans a fifth more. All real footage is closer to
            // the original and encoded faster.
            if options.speed == Speed::Fast {
                set("bframes", "0");
            }
            set("key-int-max", &KEY_FRAME_DISTANCE.to_string());
        }
        "openh264enc" => {
            set("rate-control", "quality");
            set("bitrate", &bits_per_second(caps, 51, quantizer).to_string());
            set("complexity", options.speed.of("low", "medium", "high"));
            set("gop-size", &KEY_FRAME_DISTANCE.to_string());
        }
        "nvh264enc" => {
            set("rc-mode", "constqp");
            set("qp-const", &q);
            set("gop-size", &KEY_FRAME_DISTANCE.to_string());
        }
        "vp8enc" | "vp9enc" => {
            set("deadline", "1");
            set("cpu-used", options.speed.of("8", "5", "2"));
            set("end-usage", "cq");
            set("cq-level", &q);
            set("min-quantizer", &quantizer.saturating_sub(16).to_string());
            set("max-quantizer", &(quantizer + 20).min(63).to_string());
            set("target-bitrate", &bits_per_second(caps, 63, quantizer).to_string());
            set("keyframe-max-dist", &KEY_FRAME_DISTANCE.to_string());
            // Frames of a variable frame rate may be closer together than the nominal rate says.
            set("timebase", "1/90000");
            set("threads", "1");
            set("row-mt", "true");
        }
        // The VA and QSV encoders share these names. A property that an encoder lacks is skipped.
        _ => {
            set("rate-control", "cqp");
            for property in ["qpi", "qpp", "qp-i", "qp-p", "init-qp"] {
                set(property, &q);
            }
            set("key-int-max", &KEY_FRAME_DISTANCE.to_string());
            set("keyframe-period", &KEY_FRAME_DISTANCE.to_string());
            set("gop-size", &KEY_FRAME_DISTANCE.to_string());
        }
    }
    Ok(encoder)
}

impl Speed {
    fn of(self, fast: &'static str, balanced: &'static str, slow: &'static str) -> &'static str {
        match self {
            Self::Fast => fast,
            Self::Balanced => balanced,
            Self::Slow => slow,
        }
    }
}

/// An encoding of sound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SoundEncoder {
    /// Encoders, best first, each with its number of priming samples; empty for uncompressed samples.
    encoders: &'static [(&'static str, u64)],
    parser: Option<&'static str>,
}

impl SoundEncoder {
    /// Advanced Audio Coding, which every MP4 player supports.
    pub(super) const AAC: Self = Self {
        encoders: &[("fdkaacenc", 2048), ("avenc_aac", 1024), ("voaacenc", 1600)],
        parser: Some("aacparse"),
    };
    /// Opus. Its header holds the number of priming samples.
    pub(super) const OPUS: Self = Self { encoders: &[("opusenc", 0)], parser: None };
    /// Uncompressed samples.
    pub(super) const NONE: Self = Self { encoders: &[], parser: None };

    /// The encoding that makes sound of this format, so that it can follow in a track.
    pub(super) fn of(format: &gst::StructureRef) -> Option<Self> {
        let version = format.get::<i32>("mpegversion").unwrap_or(0);
        Some(match format.name().as_str() {
            "audio/x-raw" => Self::NONE,
            "audio/x-opus" => Self::OPUS,
            "audio/mpeg" if version == 4 => Self::AAC,
            "audio/mpeg" if format.get::<i32>("layer") == Ok(3) => {
                Self { encoders: &[("lamemp3enc", 1105)], parser: Some("mpegaudioparse") }
            }
            "audio/mpeg" => Self {
                encoders: &[("avenc_mp2", 481), ("twolamemp2enc", 481)],
                parser: Some("mpegaudioparse"),
            },
            "audio/x-ac3" => Self { encoders: &[("avenc_ac3", 256)], parser: Some("ac3parse") },
            "audio/x-eac3" => Self { encoders: &[("avenc_eac3", 256)], parser: Some("ac3parse") },
            _ => return None,
        })
    }

    /// The first of its encoders that is installed, with its delay.
    fn found(self) -> Option<(gst::Element, u64)> {
        self.encoders.iter().find_map(|(name, delay)| Some((element(name).ok()?, *delay)))
    }

    /// Length of its priming, for sound of that rate.
    pub(super) fn delay_ns(self, format: &gst::StructureRef) -> u64 {
        let rate =
            format.get::<i32>("rate").ok().and_then(|rate| u64::try_from(rate).ok()).filter(|&rate| rate > 0);
        let delay = self.found().map_or(0, |(_, delay)| delay);
        rate.map_or(0, |rate| delay * 1_000_000_000 / rate)
    }

    /// The name of the codec.
    pub(super) fn name(self) -> &'static str {
        if self == Self::OPUS { "Opus" } else { "AAC" }
    }

    /// Whether it supports the number of channels of `format`.
    pub(super) fn keeps_channels(self, format: &gst::StructureRef) -> bool {
        let kept = fixed(format, self.found().map(|(encoder, _)| encoder).as_ref(), false);
        !format.has_field("channels") || kept.structure(0).is_some_and(|kept| kept.has_field("channels"))
    }

    /// The elements that encode samples. Later input with another rate or other channels is converted to
    /// those of `format`, and with `exactly` to all of its properties.
    pub(super) fn chain(
        self,
        format: &gst::StructureRef,
        exactly: bool,
    ) -> Result<Vec<gst::Element>, MediaError> {
        let mut chain = vec![element("audioconvert")?, element("audioresample")?];
        let encoder = match self == Self::NONE {
            true => None,
            false => {
                let missing = || MediaError::MissingElement("an encoder for the sound".to_owned());
                Some(self.found().ok_or_else(missing)?.0)
            }
        };
        let filter = element("capsfilter")?;
        filter.set_property("caps", fixed(format, encoder.as_ref(), exactly && self == Self::NONE));
        chain.push(filter);
        chain.extend(encoder);
        chain.extend(self.parser.map(element).transpose()?);
        Ok(chain)
    }
}

/// The properties of the format that samples keep, as far as the encoder supports them.
fn fixed(format: &gst::StructureRef, encoder: Option<&gst::Element>, exactly: bool) -> gst::Caps {
    let all = &["format", "layout", "rate", "channels", "channel-mask"][..];
    let kept = if exactly { all } else { &["rate", "channels"] };
    let mut caps = gst::Caps::new_empty_simple("audio/x-raw");
    let taken = encoder.and_then(|encoder| encoder.static_pad("sink")).map(|pad| pad.pad_template_caps());
    for &field in kept {
        let Ok(value) = format.value(field) else { continue };
        let mut more = caps.clone();
        if let Some(structure) = more.make_mut().structure_mut(0) {
            structure.set_value(field, value.to_owned());
        }
        if taken.as_ref().is_none_or(|taken| taken.can_intersect(&more)) {
            caps = more;
        }
    }
    caps
}

/// A ceiling for encoders that need a bit rate: 0.2 bits per pixel at the middle of the quantizer range,
/// halved or doubled per sixth of the range.
fn bits_per_second(caps: &gst::Caps, most: u8, quantizer: u8) -> u64 {
    let Ok(info) = gstreamer_video::VideoInfo::from_caps(caps) else { return 2_000_000 };
    let fps = f64::from(info.fps().numer().max(1)) / f64::from(info.fps().denom().max(1));
    let pixels = f64::from(info.width()) * f64::from(info.height());
    let sixths = 6.0 * (0.5 - f64::from(quantizer) / f64::from(most));
    ((pixels * fps * 0.2 * sixths.exp2()) as u64).clamp(200_000, 200_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_container_decides_the_codec_and_refuses_what_it_cannot_hold() {
        let with = |codec| SinkOptions { codec, ..SinkOptions::default() };
        let chosen = |codec, container| VideoCodec::choose(&with(codec), container).ok();
        assert_eq!(chosen(Codec::Auto, Container::Mp4), Some(VideoCodec::H264));
        assert_eq!(chosen(Codec::Auto, Container::Matroska), Some(VideoCodec::H264));
        assert_eq!(chosen(Codec::Auto, Container::WebM), Some(VideoCodec::Vp8));
        assert_eq!(chosen(Codec::Vp9, Container::Mp4), Some(VideoCodec::Vp9));
        assert_eq!(chosen(Codec::H264, Container::WebM), None);
        assert_eq!(chosen(Codec::Vp8, Container::Mp4), None);
    }

    #[test]
    fn a_quantizer_out_of_range_is_refused() {
        let with = |quantizer| SinkOptions { quantizer: Some(quantizer), ..SinkOptions::default() };
        assert_eq!(VideoCodec::H264.quantizer(&SinkOptions::default()).unwrap(), 23);
        assert_eq!(VideoCodec::Vp9.quantizer(&with(63)).unwrap(), 63);
        let message = VideoCodec::H264.quantizer(&with(52)).unwrap_err().to_string();
        assert_eq!(message, "quantizer 52 is invalid: H.264 takes 0 (best) to 51");
    }
}
