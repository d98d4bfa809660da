//! OpenTimelineIO's JSON.

use serde_json::{Value, json};

use super::{Mark, Timeline, colour};

const COLOURS: [&str; 9] = ["BLUE", "GREEN", "RED", "YELLOW", "CYAN", "PINK", "PURPLE", "ORANGE", "MAGENTA"];

pub(super) fn text(timeline: &Timeline<'_>) -> String {
    let Timeline { video, media, numbering, start, length, .. } = timeline;
    let rate = numbering.rate.per_s();
    let time = |frame: i64| json!({"OTIO_SCHEMA": "RationalTime.1", "rate": rate, "value": frame as f64});
    let range = |first: i64, length: i64| json!({"OTIO_SCHEMA": "TimeRange.1", "start_time": time(first), "duration": time(length)});
    // A marker of a clip is in the clip's own time, which begins at the timecode of the video.
    let marker = |Mark { name, person, first, length }: &Mark<'_>| {
        json!({
            "OTIO_SCHEMA": "Marker.2",
            "name": name,
            "color": colour(&COLOURS, *person),
            "comment": "",
            "metadata": {"sphereface": {"person": name}},
            "marked_range": range(start + first, *length),
        })
    };
    let markers: Vec<Value> = timeline.marks.iter().map(marker).collect();
    let clip = json!({
        "OTIO_SCHEMA": "Clip.2",
        "name": video.name,
        "metadata": {},
        "effects": [],
        "enabled": true,
        "source_range": range(*start, *length),
        "markers": markers,
        "active_media_reference_key": "DEFAULT_MEDIA",
        "media_references": {
            "DEFAULT_MEDIA": {
                "OTIO_SCHEMA": "ExternalReference.1",
                "name": video.name,
                "metadata": {},
                "target_url": media,
                "available_range": range(*start, *length),
                "available_image_bounds": null,
            },
        },
    });
    let composition = |schema: &str, name: &str, children: Value| {
        json!({
            "OTIO_SCHEMA": schema,
            "name": name,
            "metadata": {},
            "effects": [],
            "markers": [],
            "enabled": true,
            "source_range": null,
            "children": children,
        })
    };
    let mut track = composition("Track.1", "Video", json!([clip]));
    track["kind"] = "Video".into();
    let whole = json!({
        "OTIO_SCHEMA": "Timeline.1",
        "name": timeline.title(),
        "metadata": {},
        "global_start_time": time(*start),
        "tracks": composition("Stack.1", "tracks", json!([track])),
    });
    format!("{whole:#}\n")
}
