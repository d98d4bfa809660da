//! Faces and events in GStreamer: metas on buffers, structures in messages.

use gstreamer as gst;
use gstreamer_video as gst_video;
use sphereface::{Event, EventKind, IdentifiedFace, LabelledFrame};

/// The label of a face: a name, "Unknown 3", or "unknown".
fn who(face: &IdentifiedFace) -> String {
    face.who().map_or_else(|| "unknown".into(), |who| who.to_string())
}

/// The part of a face's box inside the picture: x, y, width, height; `None` if it is outside.
fn rectangle(face: &IdentifiedFace, (width, height): (usize, usize)) -> Option<(u32, u32, u32, u32)> {
    let bbox = face.bbox();
    let side = |first: f32, last: f32, limit: usize| {
        let clip = |at: f32| at.clamp(0.0, limit as f32) as u32;
        let (first, last) = (clip(first.floor()), clip(last.ceil()));
        (last > first).then_some((first, last - first))
    };
    let (x, width) = side(bbox.x1, bbox.x2, width)?;
    let (y, height) = side(bbox.y1, bbox.y2, height)?;
    Some((x, y, width, height))
}

/// The structure of a face.
fn structure(name: &str, face: &IdentifiedFace) -> gst::Structure {
    let mut structure = gst::Structure::builder(name)
        .field("name", who(face))
        .field("known", face.name().is_some())
        .field("score", f64::from(face.face.score))
        .field("landmarks", gst::Array::new(face.landmarks().as_flattened().iter().map(|x| f64::from(*x))))
        .build();
    if let Some(angle_deg) = face.angle_deg() {
        structure.set("angle", f64::from(angle_deg));
    }
    if let Some(track) = face.track {
        structure.set("track", track.0);
    }
    structure
}

/// Puts a region of interest on the buffer for every face.
pub fn add_metas(buffer: &mut gst::BufferRef, frame: &LabelledFrame, size: (usize, usize)) {
    for face in frame.faces.iter().filter(|face| !face.transient) {
        if let Some(rectangle) = rectangle(face, size) {
            let mut meta = gst_video::VideoRegionOfInterestMeta::add(buffer, "face", rectangle);
            meta.add_param(structure("sphereface", face));
        }
    }
}

/// The structure of the message about an event in the frame shown at a running time.
pub fn of_event(event: &Event, running_time: gst::ClockTime) -> gst::Structure {
    let kind = match &event.kind {
        EventKind::Appeared => "appeared",
        EventKind::Left => "left",
        EventKind::Renamed { .. } => "renamed",
        _ => "other",
    };
    let mut structure = gst::Structure::builder("sphereface-event")
        .field("event", kind)
        .field("name", event.who.to_string())
        .field("known", event.who.name().is_some())
        .field("track", event.track.0)
        .field("running-time", running_time)
        .build();
    if let EventKind::Renamed { from } = &event.kind {
        structure.set("was", from.to_string());
    }
    if let Some(angle_deg) = event.angle_deg {
        structure.set("angle", f64::from(angle_deg));
    }
    structure
}

/// The structure of the message about all faces of a frame.
pub fn of_frame(frame: &LabelledFrame, running_time: gst::ClockTime) -> gst::Structure {
    let one = |face: &IdentifiedFace| {
        let bbox = face.bbox();
        let mut structure = structure("face", face);
        let edges = [bbox.x1, bbox.y1, bbox.x2, bbox.y2];
        structure.set("box", gst::Array::new(edges.map(f64::from)));
        structure
    };
    let faces = frame.faces.iter().filter(|face| !face.transient).map(one);
    gst::Structure::builder("sphereface-frame")
        .field("frame", frame.index)
        .field("running-time", running_time)
        .field("faces", gst::Array::new(faces))
        .build()
}

/// The boxes and texts to draw on a frame.
pub fn labels(frame: &LabelledFrame) -> Vec<sphereface::annotate::Label> {
    let one = |face: &IdentifiedFace| sphereface::annotate::Label {
        landmarks: Some(face.landmarks()),
        name: face.name().map(str::to_owned),
        stranger: face.stranger,
        angle_deg: face.angle_deg(),
        score: Some(face.face.score),
        ..sphereface::annotate::Label::unknown(face.bbox())
    };
    frame.faces.iter().filter(|face| !face.transient).map(one).collect()
}
