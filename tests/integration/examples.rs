//! The examples, run on the bundled sample as their first lines say.
#![cfg(all(
    feature = "bundled-models",
    feature = "candle",
    feature = "cli",
    feature = "train",
    feature = "video"
))]

use std::path::{Path, PathBuf};
use std::process::Command;

fn sample(path: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("samples").join(path).to_str().unwrap().to_owned()
}

/// The example of that name, built before; `cargo test` builds them all.
fn example(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_sphereface")).parent().unwrap().join("examples").join(name);
    if !path.exists() {
        let mut cargo = Command::new(env!("CARGO"));
        let built = cargo.args(["build", "--example", name]).current_dir(env!("CARGO_MANIFEST_DIR")).status();
        assert!(built.unwrap().success(), "{name} cannot be built");
    }
    path
}

fn run(name: &str, arguments: &[&str]) -> String {
    let output = Command::new(example(name)).args(arguments).output().unwrap();
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Two of the three people, enrolled by the example for that.
fn gallery(folder: &tempfile::TempDir) -> String {
    let gallery = folder.path().join("gallery").to_str().unwrap().to_owned();
    for name in ["Ada", "Boris"] {
        let stills = [sample(&format!("people/{name}/1.jpg")), sample(&format!("people/{name}/2.jpg"))];
        let told = run("enroll", &[&gallery, name, &stills[0], &stills[1]]);
        assert!(told.ends_with(&format!("{name} has 2 stills\n")), "{told}");
    }
    gallery
}

#[test]
fn people_are_enrolled_named_in_a_still_and_followed_in_videos() {
    let folder = tempfile::tempdir().unwrap();
    let gallery = gallery(&folder);
    let named = run("name_still", &[&gallery, &sample("people/Ada/3.jpg")]);
    assert!(named.starts_with("Ada at "), "{named}");
    let stranger = run("name_still", &[&gallery, &sample("people/Chloé/1.jpg")]);
    assert!(stranger.starts_with("unknown at "), "{stranger}");

    let video = sample("sample.mp4");
    let told = run("follow_video", &[&gallery, &video]);
    for event in ["Ada appeared", "Boris appeared", "Ada left", "Boris left"] {
        assert!(told.contains(event), "{event}: {told}");
    }
    assert!(told.contains("350 frames, "), "{told}");

    let copy = folder.path().join("copy.mp4").to_str().unwrap().to_owned();
    std::fs::copy(&video, &copy).unwrap();
    let told = run("many_sources", &[&gallery, &video, &copy]);
    for source in [&video, &copy] {
        assert!(told.contains(&format!("{source}: Boris Appeared at 0.00 s")), "{told}");
    }
}

#[test]
fn a_toy_network_is_trained_on_two_people() {
    let folder = tempfile::tempdir().unwrap();
    let crops = folder.path().join("crops");
    for (number, name) in ["Ada", "Boris"].into_iter().enumerate() {
        std::fs::create_dir_all(crops.join(name)).unwrap();
        for still in 0..4u8 {
            let shade = |x: u32, y: u32| (x as usize * (number + 1) + y as usize + usize::from(still)) as u8;
            let image = image::RgbImage::from_fn(96, 112, |x, y| image::Rgb([shade(x, y); 3]));
            image.save(crops.join(name).join(format!("{still}.png"))).unwrap();
        }
    }
    let run_folder = folder.path().join("run").to_str().unwrap().to_owned();
    let told = run("train_toy", &[crops.to_str().unwrap(), &run_folder]);
    assert!(told.contains("40 iterations, weights in "), "{told}");
    assert!(Path::new(&run_folder).join("model.safetensors").exists());
}
