//! Sound whose format changes in the middle: decoded, and encoded again in its first format.

use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;

use super::element;
use super::encoder::SoundEncoder;

/// Time limit for the last packets.
const DRAIN_LIMIT: Duration = Duration::from_secs(5);

/// Converts sound of one format to another.
pub(super) struct Remake {
    pipeline: gst::Pipeline,
    source: gst_app::AppSrc,
    from: gst::Caps,
    ended: Receiver<()>,
}

impl Remake {
    /// Converts from `from` to `to` and pushes the result to `out`.
    ///
    /// # Errors
    /// Why that is impossible, for the user.
    pub(super) fn start(from: &gst::Caps, to: &gst::Caps, out: &gst_app::AppSrc) -> Result<Self, String> {
        let failed =
            |error: &dyn std::fmt::Display| format!("it changes and cannot be encoded again ({error})");
        let format = to.structure(0).ok_or_else(|| failed(&"its format is unknown"))?;
        let encoder = SoundEncoder::of(format).ok_or_else(|| failed(&format.name()))?;
        let pipeline = gst::Pipeline::new();
        let source = gst_app::AppSrc::builder().caps(from).format(gst::Format::Time).max_bytes(0).build();
        let add = |name: &str| element(name).map_err(|error| failed(&error));
        let decoder = add("decodebin")?;
        let chain = encoder.chain(format, true).map_err(|error| failed(&error))?;
        let sink = gst_app::AppSink::builder().sync(false).async_(false).build();
        let elements: Vec<&gst::Element> = chain.iter().chain([sink.upcast_ref()]).collect();
        pipeline.add_many([source.upcast_ref(), &decoder]).map_err(|error| failed(&error))?;
        pipeline.add_many(&elements).map_err(|error| failed(&error))?;
        source.link(&decoder).map_err(|error| failed(&error))?;
        gst::Element::link_many(&elements).map_err(|error| failed(&error))?;
        let input = elements.first().and_then(|first| first.static_pad("sink"));
        let input = input.ok_or_else(|| failed(&"nothing takes it"))?;
        decoder.connect_pad_added(move |_, pad| {
            // Only the first pad can be linked.
            let _ = pad.link(&input);
        });
        let ended = hand_on(&sink, to, out, encoder.delay_ns(format));
        if pipeline.set_state(gst::State::Playing).is_err() {
            let _ = pipeline.set_state(gst::State::Null);
            return Err(failed(&"its encoder does not start"));
        }
        Ok(Self { pipeline, source, from: from.clone(), ended })
    }

    /// Whether it converts from these caps.
    pub(super) fn takes(&self, caps: &gst::Caps) -> bool {
        self.from == *caps
    }

    /// The next packet.
    pub(super) fn push(&self, buffer: &gst::Buffer, caps: &gst::Caps) {
        let sample = gst::Sample::builder().buffer(buffer).caps(caps).build();
        let _ = self.source.push_sample(&sample);
    }

    /// Waits until everything was passed on.
    pub(super) fn finish(self) {
        let _ = self.source.end_of_stream();
        let _ = self.ended.recv_timeout(DRAIN_LIMIT);
    }
}

impl Drop for Remake {
    fn drop(&mut self) {
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

/// Passes the converted sound on to `out`, without the priming of the encoder, and then signals the end.
fn hand_on(sink: &gst_app::AppSink, to: &gst::Caps, out: &gst_app::AppSrc, delay_ns: u64) -> Receiver<()> {
    let (tell, ended) = channel();
    let (to, out, mut left_ns) = (to.clone(), out.clone(), delay_ns);
    sink.set_callbacks(
        gst_app::AppSinkCallbacks::builder()
            .new_sample(move |sink| {
                let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
                let Some(mut buffer) = sample.buffer_owned() else { return Ok(gst::FlowSuccess::Ok) };
                let length_ns = buffer.duration().map_or(0, gst::ClockTime::nseconds);
                // Lengths are rounded.
                if length_ns > 0 && left_ns + 1_000 >= length_ns {
                    left_ns = left_ns.saturating_sub(length_ns);
                    return Ok(gst::FlowSuccess::Ok);
                }
                let fields = buffer.make_mut();
                let earlier = gst::ClockTime::from_nseconds(delay_ns);
                fields.set_pts(fields.pts().map(|pts| pts.saturating_sub(earlier)));
                fields.set_dts(gst::ClockTime::NONE);
                let _ = out.push_sample(&gst::Sample::builder().buffer(&buffer).caps(&to).build());
                Ok(gst::FlowSuccess::Ok)
            })
            .eos(move |_| {
                let _ = tell.send(());
            })
            .build(),
    );
    ended
}
