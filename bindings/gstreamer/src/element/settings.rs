//! The settings of the element as GStreamer properties.

use std::sync::LazyLock;

use gst::glib;
use gst::prelude::*;
use gstreamer as gst;
use sphereface::GalleryOptions;
use sphereface::annotate::Whom;
use sphereface::detect::DetectorConfig;
use sphereface::engine::DetectEvery;
use sphereface::identify::ThresholdRequest;
use sphereface::nn::{Arithmetic, ArithmeticChoice};

use super::engines::EngineSettings;

/// Nanoseconds out of sight after which a person has left, unless set.
const LEFT_AFTER_NS: u64 = 2_000_000_000;

/// The number format of the embedding network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, glib::Enum)]
#[repr(u32)]
#[enum_type(name = "GstSphereFacePrecision")]
pub enum Precision {
    #[enum_value(name = "32-bit floating point", nick = "f32")]
    F32,
    #[enum_value(name = "bfloat16, on CPUs with AVX-512 BF16 or AMX", nick = "bf16")]
    Bf16,
    // Programs may have stored the numbers of the other values, so those stay.
    #[default]
    #[enum_value(
        name = "bfloat16 on CPUs where it was measured to be faster, else 32-bit floating point",
        nick = "auto"
    )]
    Auto,
    #[enum_value(name = "8-bit integers, on CPUs with AMX: slightly more misses", nick = "int8")]
    Int8,
}

/// The values of the properties, as they were set.
#[derive(Debug, Clone)]
pub struct Settings {
    pub gallery: Option<String>,
    pub model: Option<String>,
    pub threshold_deg: f64,
    pub detect_every: u32,
    pub min_face: Option<String>,
    pub precision: Precision,
    pub threads: u32,
    pub draw: bool,
    pub redact: Option<String>,
    pub left_after_ns: u64,
    pub post_frames: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            gallery: None,
            model: None,
            threshold_deg: 0.0,
            detect_every: 0,
            min_face: None,
            precision: Precision::default(),
            threads: 0,
            draw: true,
            redact: None,
            left_after_ns: LEFT_AFTER_NS,
            post_frames: false,
        }
    }
}

impl Settings {
    /// The engine of these settings; the error names an invalid one.
    pub fn engine(&self) -> Result<EngineSettings, String> {
        let min_face = match &self.min_face {
            Some(text) => text.parse().map_err(|error| format!("{error}"))?,
            None => DetectorConfig::default().min_face,
        };
        let precision = match self.precision {
            Precision::F32 => Arithmetic::F32.into(),
            Precision::Bf16 => Arithmetic::Bf16.into(),
            Precision::Auto => ArithmeticChoice::Auto,
            Precision::Int8 => Arithmetic::Int8.into(),
        };
        let threads = (self.threads > 0).then_some(self.threads as usize);
        Ok(EngineSettings { model: self.model.clone(), min_face, precision, threads })
    }

    /// Whose faces are covered.
    pub fn whom(&self) -> Result<Option<Whom>, String> {
        let parsed = self.redact.as_deref().map(str::parse::<Whom>).transpose();
        parsed.map_err(|error| error.to_string())
    }

    /// The threshold of the gallery.
    pub fn gallery_options(&self) -> GalleryOptions {
        match self.threshold_deg > 0.0 {
            true => GalleryOptions::default().threshold(ThresholdRequest::AngleDeg(self.threshold_deg)),
            false => GalleryOptions::default(),
        }
    }

    /// How often the whole frame is searched.
    pub fn every(&self) -> DetectEvery {
        match self.detect_every {
            0 => DetectEvery::Auto,
            frames => DetectEvery::Frames(frames),
        }
    }

    /// Sets a property. Returns whether the gallery has to be read again.
    pub fn set(&mut self, name: &str, value: &glib::Value) -> bool {
        let text = || value.get::<Option<String>>().unwrap_or_default().filter(|text| !text.is_empty());
        let number = || value.get::<u32>().unwrap_or_default();
        match name {
            "gallery" => self.gallery = text(),
            "model" => self.model = text(),
            "threshold" => self.threshold_deg = value.get().unwrap_or_default(),
            "detect-every" => self.detect_every = number(),
            "min-face" => self.min_face = text(),
            "precision" => self.precision = value.get().unwrap_or_default(),
            "threads" => self.threads = number(),
            "draw" => self.draw = value.get().unwrap_or_default(),
            "redact" => self.redact = text(),
            "left-after" => self.left_after_ns = value.get().unwrap_or(LEFT_AFTER_NS),
            "post-frames" => self.post_frames = value.get().unwrap_or_default(),
            // GObject reads and writes declared properties only.
            _ => {}
        }
        matches!(name, "gallery" | "threshold")
    }

    /// The value of a property.
    pub fn get(&self, name: &str) -> glib::Value {
        match name {
            "gallery" => self.gallery.to_value(),
            "model" => self.model.to_value(),
            "threshold" => self.threshold_deg.to_value(),
            "detect-every" => self.detect_every.to_value(),
            "min-face" => self.min_face.to_value(),
            "precision" => self.precision.to_value(),
            "threads" => self.threads.to_value(),
            "draw" => self.draw.to_value(),
            "redact" => self.redact.to_value(),
            "left-after" => self.left_after_ns.to_value(),
            _ => self.post_frames.to_value(),
        }
    }
}

/// A property with a string value.
fn text(name: &'static str, nick: &str, blurb: &str) -> glib::ParamSpec {
    glib::ParamSpecString::builder(name).nick(nick).blurb(blurb).mutable_ready().build()
}

/// All properties, with the texts for `gst-inspect-1.0`.
pub static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
    let default = Settings::default();
    vec![
        glib::ParamSpecString::builder("gallery")
            .nick("Gallery")
            .blurb("Folder of the people to name, as `sphereface enroll` makes it; read again whenever it is set. Without a gallery, every person is a numbered stranger")
            .mutable_playing()
            .build(),
        text("model", "Model", "Embedding network: the name of a built-in one or the path of a safetensors file (unset: the default model)"),
        glib::ParamSpecDouble::builder("threshold")
            .nick("Threshold")
            .blurb("Angle in degrees below which a face is named (0: the model's calibration)")
            .minimum(0.0)
            .maximum(179.9)
            .default_value(default.threshold_deg)
            .mutable_playing()
            .build(),
        glib::ParamSpecUInt::builder("detect-every")
            .nick("Detect every")
            .blurb("Frames from one search of the whole frame to the next; known faces are followed in between (0: automatic)")
            .maximum(32)
            .default_value(default.detect_every)
            .mutable_ready()
            .build(),
        text("min-face", "Smallest face", "Smallest face to look for: pixels (40px) or a share of the frame height (5%) (unset: 40px)"),
        glib::ParamSpecEnum::builder_with_default("precision", default.precision)
            .nick("Precision")
            .blurb("Number format in which the embedding network computes")
            .mutable_ready()
            .build(),
        glib::ParamSpecUInt::builder("threads")
            .nick("Threads")
            .blurb("Threads that embed faces at the same time; elements with the same settings share them (0: one per CPU)")
            .maximum(256)
            .default_value(default.threads)
            .mutable_ready()
            .build(),
        glib::ParamSpecBoolean::builder("draw")
            .nick("Draw")
            .blurb("Draw boxes and names on the video")
            .default_value(default.draw)
            .mutable_playing()
            .build(),
        text("redact", "Redact", "Whose faces to cover: all, unknown, except:NAME,... or only:NAME,... A face is covered from the first frame in which it is found: for proof that nothing is left uncovered, use `sphereface label --redact` on a file"),
        glib::ParamSpecUInt64::builder("left-after")
            .nick("Left after")
            .blurb("Time out of sight in nanoseconds after which a person has left")
            .default_value(default.left_after_ns)
            .mutable_ready()
            .build(),
        glib::ParamSpecBoolean::builder("post-frames")
            .nick("Post frames")
            .blurb("Post an element message `sphereface-frame` with all faces for every frame")
            .default_value(default.post_frames)
            .mutable_playing()
            .build(),
    ]
});
