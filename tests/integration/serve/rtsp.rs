//! Labelled pictures as streams.
#![cfg(feature = "rtsp")]

use std::time::{Duration, Instant};

use sphereface::media::{Input, Reconnect, Source, SourceOptions};

use crate::serve::client::{LIMIT, Service, place, sample};

fn open(url: &str) -> Result<Source, sphereface::media::MediaError> {
    let options = SourceOptions {
        reconnect: Reconnect { attempts: Some(0), ..Reconnect::default() },
        patience: Some(Duration::from_secs(20)),
        ..SourceOptions::default()
    };
    Source::open(&Input::parse(url).unwrap(), &options)
}

#[test]
fn a_recorder_sees_the_labelled_pictures_and_only_with_the_password() {
    let place = place();
    let camera = |name: &str, more: &str| {
        let sample = sample("sample.mp4");
        format!("[[source]]\nname = \"{name}\"\ninput = \"{}\"\nrepeat = true\n{more}", sample.display())
    };
    let rtsp = "[rtsp]\nlisten = \"127.0.0.1:0\"\nuser = \"recorder\"\npassword = \"long enough\"\n";
    let text = format!("{rtsp}{}{}", camera("door", ""), camera("covered", "redact = \"all\"\n"));
    std::fs::write(place.path().join("serve.toml"), text).unwrap();
    let mut service = Service::start(place.path(), &["serve.toml"]);
    let address = service.told.iter().find_map(|line| line.strip_prefix("streams: rtsp://")).unwrap();
    let address = address.strip_suffix("/NAME").unwrap().to_owned();
    let url = |login: &str, name: &str| format!("rtsp://{login}{address}/{name}");
    for login in ["", "recorder:wrong@", "other:long%20enough@"] {
        assert!(open(&url(login, "door")).is_err(), "{login}");
    }
    assert!(open(&url("recorder:long%20enough@", "yard")).is_err(), "there is no such source");
    service.event("recognised", "Boris");
    let mut pictures = Vec::new();
    for name in ["door", "covered"] {
        let mut source = open(&url("recorder:long%20enough@", name)).unwrap();
        assert_eq!((source.info().width, source.info().height, source.info().live), (768, 432, true));
        let until = Instant::now() + LIMIT;
        for _ in 0..10 {
            pictures.push(source.next_frame().unwrap().expect("pictures come").picture.to_rgb());
            assert!(Instant::now() < until);
        }
    }
    // No face is detected where faces are covered.
    let faces = |picture: &image::RgbImage| {
        let mut jpeg = std::io::Cursor::new(Vec::new());
        picture.write_to(&mut jpeg, image::ImageFormat::Jpeg).unwrap();
        let found =
            service.request("POST", "/api/v1/detect").body("image/jpeg", jpeg.into_inner()).send().ok();
        usize::from(!found["pictures"][0]["faces"].as_array().unwrap().is_empty())
    };
    let shown: usize = pictures[..10].iter().map(faces).sum();
    let covered: usize = pictures[10..].iter().map(faces).sum();
    assert!(shown >= 6 && covered <= 2, "{shown} and {covered} of 10 show a face");
    service.signal("TERM");
    assert_eq!(service.ended(), Some(0));
}
