//! The program among other tools: pipes that close, devices and links as outputs, unusual folders of people,
//! two processes at once. All inputs are made here or come from the sample.
#![cfg(all(
    feature = "bundled-models",
    feature = "candle",
    feature = "cli",
    feature = "train",
    feature = "video"
))]
#![cfg(unix)]

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// A picture of a person of the bundled sample.
fn picture(person: &str, number: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("samples/people/{person}/{number}.jpg"))
}

/// Five frames without a face.
#[cfg(feature = "video")]
const BARS: &str = "gst:videotestsrc num-buffers=5 ! video/x-raw,width=160,height=120,framerate=25/1";

struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sphereface"));
        command.args(arguments).current_dir(self.folder.path()).stdin(Stdio::null());
        command
    }

    #[track_caller]
    fn output(&self, arguments: &[&str], code: i32) -> (String, String) {
        let Output { status, stdout, stderr } = self.command(arguments).output().unwrap();
        let [stdout, stderr] = [stdout, stderr].map(|text| String::from_utf8(text).unwrap());
        assert_eq!(status.code(), Some(code), "{arguments:?}: {stdout}{stderr}");
        (stdout, stderr)
    }

    #[track_caller]
    fn run(&self, arguments: &[&str]) -> String {
        self.output(arguments, 0).0
    }

    /// Runs with a closed pipe as standard output, and optionally as standard error too.
    #[track_caller]
    fn unread(&self, arguments: &[&str], errors_too: bool, code: i32) -> String {
        let gone = || {
            let (reader, writer) = std::io::pipe().unwrap();
            drop(reader);
            Stdio::from(writer)
        };
        let errors = if errors_too { gone() } else { Stdio::piped() };
        let output = self.command(arguments).stdout(gone()).stderr(errors).spawn().unwrap();
        let output = output.wait_with_output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(!said.contains("panic"), "{said}");
        said
    }

    /// Copies a picture, with the folders that lead to it.
    fn put(&self, from: &Path, to: &str) {
        let to = self.at(to);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(from, to).unwrap();
    }

    /// The enrolled people, with the number of their stills.
    fn people(&self, gallery: &str) -> Vec<(String, usize)> {
        let listed: Value =
            serde_json::from_str(&self.run(&["gallery", "list", "--json", "--gallery", gallery])).unwrap();
        let one = |person: &Value| {
            (person["name"].as_str().unwrap().to_owned(), person["stills"].as_array().unwrap().len())
        };
        listed.as_array().unwrap().iter().map(one).collect()
    }

    /// Everything in the folder, hidden files included.
    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.folder.path()).unwrap();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o777
}

/// A null device: for root, who could replace the system's by mistake, one of our own; for others, the
/// system's.
fn null_device(place: &Place) -> Option<PathBuf> {
    if Path::new("/proc/self").metadata().map_or(true, |process| process.uid() != 0) {
        return Some("/dev/null".into());
    }
    let null = place.at("null");
    let made = Command::new("mknod").arg(&null).args(["c", "1", "3"]).status();
    let works = made.is_ok_and(|status| status.success()) && fs::write(&null, "").is_ok();
    works.then_some(null)
}

#[test]
fn device_replaced_devices_links_and_permissions_of_outputs_stay() {
    let place = Place::new();
    let ada = picture("Ada", 1);
    fs::create_dir(place.at("real")).unwrap();
    symlink("real/faces.csv", place.at("link.csv")).unwrap();
    fs::write(place.at("private.png"), "old").unwrap();
    fs::set_permissions(place.at("private.png"), fs::Permissions::from_mode(0o600)).unwrap();
    let null = null_device(&place);
    let mut arguments =
        vec!["label", text(&ada), "-o", "private.png", "--csv", "link.csv", "--jsonl", "/dev/stdout"];
    if let Some(null) = &null {
        arguments.extend(["--chapters", text(null)]);
    }
    let faces = place.run(&arguments);
    assert_eq!(faces.lines().count(), 1, "{faces}");
    assert!(serde_json::from_str::<Value>(&faces).unwrap()["box"].is_array());
    if let Some(null) = null {
        assert!(null.metadata().unwrap().file_type().is_char_device(), "the device stays");
        let _ = fs::remove_file(place.at("null"));
    }
    assert!(place.at("link.csv").is_symlink(), "the link stays");
    assert!(fs::read_to_string(place.at("real/faces.csv")).unwrap().starts_with("frame,"));
    assert_eq!(mode(&place.at("private.png")), 0o600);
    assert!(image::open(place.at("private.png")).is_ok());
    // A new file has the permissions of any new file.
    fs::write(place.at("usual"), "").unwrap();
    assert_eq!(mode(&place.at("real/faces.csv")), mode(&place.at("usual")));
    assert_eq!(place.names(), ["link.csv", "private.png", "real", "usual"]);
}

#[cfg(feature = "video")]
#[test]
fn device_replaced_a_video_goes_through_a_link_and_a_fifo() {
    let place = Place::new();
    symlink("real.mkv", place.at("link.mkv")).unwrap();
    place.run(&["label", BARS, "-o", "link.mkv", "--quiet"]);
    assert!(place.at("link.mkv").is_symlink());
    let whole = fs::read(place.at("real.mkv")).unwrap();
    assert!(whole.len() > 500);
    assert!(Command::new("mkfifo").arg(place.at("fifo.mp4")).status().unwrap().success());
    let reader = std::thread::spawn({
        let fifo = place.at("fifo.mp4");
        move || fs::read(fifo).unwrap()
    });
    place.run(&["label", BARS, "-o", "fifo.mp4", "--quiet"]);
    let read = reader.join().unwrap();
    assert!(read.windows(4).any(|part| part == b"moov"), "{} bytes", read.len());
    assert!(place.at("fifo.mp4").metadata().unwrap().file_type().is_fifo());
    assert_eq!(place.names(), ["fifo.mp4", "link.mkv", "real.mkv"]);
}

#[test]
fn broken_pipe_panic_a_reader_that_is_gone_ends_printing_and_nothing_else() {
    let place = Place::new();
    let people = Path::new(env!("CARGO_MANIFEST_DIR")).join("samples/people");
    place.unread(&["enroll", "--dir", text(&people), "--gallery", "g"], true, 0);
    let enrolled = ["Ada", "Boris", "Chlo\u{e9}"].map(|name| (name.to_owned(), 3));
    assert_eq!(place.people("g"), enrolled, "nobody is half enrolled");
    for arguments in [
        &["gallery", "list", "--gallery", "g"][..],
        &["gallery", "show", "Ada", "--gallery", "g"],
        &["models", "list"],
        &["models", "show", "--json"],
        &["train", "--print-config"],
        &["completions", "bash"],
        &["--help"],
    ] {
        place.unread(arguments, true, 0);
    }
    // A failure still has its exit code, although its message has no reader.
    place.unread(&["gallery", "list", "--gallery", "none"], true, 1);
    place.unread(&["label", "x.mp4"], true, 2);
    place.unread(&["nonsense"], true, 2);
    let ada = picture("Ada", 1);
    let label = ["label", text(&ada), "-o", "out.png", "--csv", "out.csv", "--jsonl", "-", "--gallery", "g"];
    place.unread(&label, true, 0);
    assert!(image::open(place.at("out.png")).is_ok());
    assert_eq!(fs::read_to_string(place.at("out.csv")).unwrap().lines().count(), 2);
}

#[cfg(feature = "video")]
#[test]
fn broken_pipe_panic_a_video_is_finished_and_a_list_for_nobody_is_not() {
    let place = Place::new();
    place.unread(&["label", BARS, "-o", "out.mkv"], true, 0);
    assert!(place.at("out.mkv").metadata().unwrap().len() > 500);
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("samples/sample.mp4");
    let said = place.unread(&["label", text(&sample), "--online", "--jsonl", "-"], false, 0);
    assert!(said.contains("stopped before the end of the input"), "{said}");
}

#[test]
#[cfg(target_os = "linux")]
fn results_that_cannot_be_written_are_a_failure() {
    let place = Place::new();
    let full = || Stdio::from(fs::File::options().write(true).open("/dev/full").unwrap());
    let output = place.command(&["models", "list"]).stdout(full()).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(said.starts_with("sphereface: standard output cannot be written"), "{said}");
}

#[test]
fn csv_dash_is_standard_output_for_every_list_and_for_one_of_them() {
    let place = Place::new();
    let ada = picture("Ada", 1);
    let list = |flag: &str| place.run(&["label", text(&ada), "--no-video", flag, "-"]);
    assert!(list("--csv").starts_with("frame,"));
    assert!(list("--appearances").starts_with("label,"));
    assert!(list("--subtitles").starts_with("WEBVTT"));
    assert!(list("--chapters").starts_with(";FFMETADATA1"));
    assert!(list("--jsonl").starts_with('{'));
    let audit = place.run(&[
        "label",
        text(&ada),
        "-o",
        "out.png",
        "--redact",
        "all",
        "--redact-audit",
        "-",
        "--quiet",
    ]);
    assert!(serde_json::from_str::<Value>(&audit).unwrap()["faces"].is_array(), "{audit}");
    for second in ["-", "/dev/stdout", "/dev/fd/1"] {
        let both = ["label", text(&ada), "--no-video", "--csv", "-", "--jsonl", second];
        let (_, said) = place.output(&both, 2);
        assert!(said.contains("--jsonl and --csv both write to standard output"), "{said}");
    }
    assert_eq!(place.names(), ["out.png"], "no file called -");
}

#[test]
fn srt_holds_subrip_and_other_endings_are_refused() {
    let place = Place::new();
    let ada = picture("Ada", 1);
    place.run(&["label", text(&ada), "--no-video", "--subtitles", "names.srt"]);
    assert!(!fs::read_to_string(place.at("names.srt")).unwrap().contains("WEBVTT"));
    place.run(&["label", text(&ada), "--no-video", "--subtitles", "names.vtt"]);
    assert!(fs::read_to_string(place.at("names.vtt")).unwrap().starts_with("WEBVTT"));
    for (flag, name) in [("--subtitles", "names.txt"), ("--subtitles", "names"), ("--chapters", "parts.srt")]
    {
        let (_, said) = place.output(&["label", text(&ada), "--no-video", flag, name], 2);
        assert!(said.contains(name) && said.contains(".vtt"), "{said}");
    }
    assert_eq!(place.names(), ["names.srt", "names.vtt"]);
}

#[test]
fn dup_aborts_dir_everybody_else_is_enrolled() {
    let place = Place::new();
    for (person, number, to) in [
        ("Ada", 1, "people/Ana/a.jpg"),
        ("Ada", 1, "people/Bob/double.jpg"),
        ("Boris", 1, "people/Bob/own.jpg"),
        ("Ada", 1, "people/Bo too.jpg"),
        ("Chlo\u{e9}", 1, "people/Cyd/c.jpg"),
    ] {
        place.put(&picture(person, number), to);
    }
    let (_, said) = place.output(&["enroll", "--dir", "people", "--gallery", "g"], 1);
    for part in ["people/Bob/double.jpg", "people/Bo too.jpg", "Ana", "Bob", "Bo too is not enrolled"] {
        assert!(said.contains(part), "{part} is not in: {said}");
    }
    let enrolled = ["Ana", "Bob", "Cyd"].map(|name| (name.to_owned(), 1));
    assert_eq!(place.people("g"), enrolled);
    let (_, said) = place.output(&["enroll", "Eve", "people/Ana/a.jpg", "--gallery", "g"], 1);
    assert!(said.contains("Eve") && said.contains("Ana") && said.contains("nobody was enrolled"), "{said}");
    // Nothing is new the second time, and the duplicate is reported again.
    place.output(&["enroll", "--dir", "people", "--gallery", "g"], 1);
    assert_eq!(place.people("g"), enrolled);
}

#[test]
fn dup_aborts_dir_nor_does_a_name_that_is_none() {
    let place = Place::new();
    place.put(&picture("Ada", 1), "people/Ana/a.jpg");
    place.put(&picture("Boris", 1), "people/B\u{7}b/b.jpg");
    let (_, said) = place.output(&["enroll", "--dir", "people", "--gallery", "g"], 1);
    assert!(said.contains("control characters"), "{said}");
    assert_eq!(place.people("g"), [("Ana".to_owned(), 1)]);
}

#[test]
fn nested_ignored_deeper_folders_count_and_who_has_no_still_is_named() {
    let place = Place::new();
    place.put(&picture("Ada", 1), "people/Ana/2020/summer/a.jpg");
    place.put(&picture("Ada", 2), "people/Ana/a.jpg");
    place.put(&picture("Boris", 1), "people/Bob/b.jpg");
    fs::create_dir_all(place.at("people/Dan/empty")).unwrap();
    // A loop of links is not followed for ever.
    symlink(".", place.at("people/Ana/again")).unwrap();
    let (told, said) = place.output(&["enroll", "--dir", "people", "--gallery", "g"], 0);
    assert!(told.contains("Ana: 1 of 2 stills lie in deeper folders"), "{told}");
    assert!(said.contains("warning: Dan is not enrolled"), "{said}");
    assert_eq!(place.people("g"), [("Ana".to_owned(), 2), ("Bob".to_owned(), 1)]);
    place.run(&["enroll", "Eve", "people/Ana", "--gallery", "other"]);
    assert_eq!(place.people("other"), [("Eve".to_owned(), 2)], "a folder named by hand likewise");
}

#[test]
fn two_processes_that_enrol_at_once_lose_nothing() {
    let place = Place::new();
    let mut running = Vec::new();
    for (name, person, number) in [
        ("Ann", "Ada", 1),
        ("Ann", "Ada", 2),
        ("Ann", "Ada", 3),
        ("Bob", "Boris", 1),
        ("Bob", "Boris", 2),
        ("Cyd", "Chlo\u{e9}", 1),
    ] {
        let still = picture(person, number);
        // All with one file name, which has to be made unique.
        let copy = place.at(&format!("{name}-{number}"));
        fs::create_dir(&copy).unwrap();
        fs::copy(still, copy.join("still.jpg")).unwrap();
        let arguments = ["enroll", name, text(&copy.join("still.jpg")), "--gallery", "g"].map(str::to_owned);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        running.push(place.command(&arguments).stdout(Stdio::null()).spawn().unwrap());
    }
    for mut process in running {
        assert!(process.wait().unwrap().success());
    }
    let expected = [("Ann".to_owned(), 3), ("Bob".to_owned(), 2), ("Cyd".to_owned(), 1)];
    assert_eq!(place.people("g"), expected);
    let shown: Value =
        serde_json::from_str(&place.run(&["gallery", "list", "--json", "--gallery", "g"])).unwrap();
    for still in shown.as_array().unwrap().iter().flat_map(|person| person["stills"].as_array().unwrap()) {
        assert!(still["blake3"].is_string());
    }
}

#[test]
fn compare_tells_the_same_person_from_another() {
    let place = Place::new();
    let [ada, again, boris] = [picture("Ada", 1), picture("Ada", 2), picture("Boris", 1)];
    let (ada, again, boris) = (text(&ada), text(&again), text(&boris));
    assert!(place.run(&["compare", ada, again]).starts_with("the same person: "));
    assert!(place.run(&["compare", ada, boris]).starts_with("different people: "));
    let told: Value = serde_json::from_str(&place.run(&["compare", ada, boris, "--json"])).unwrap();
    assert_eq!(told["same"], false);
    assert!(told["angle_deg"].as_f64().unwrap() > told["threshold_deg"].as_f64().unwrap(), "{told}");
    assert_eq!(told["b"]["box"].as_array().unwrap().len(), 4);
    assert_eq!(told["model"].as_str().unwrap().len(), 16);
    assert!(place.run(&["compare", ada, boris, "--threshold", "179"]).starts_with("the same person"));
    place.output(&["compare", ada, again, "--exit-code", "--quiet"], 0);
    assert_eq!(place.output(&["compare", ada, boris, "--exit-code", "--quiet"], 1), Default::default());
    let (_, said) = place.output(&["compare", ada, "none.jpg"], 1);
    assert!(said.contains("none.jpg"), "{said}");
    let (_, said) = place.output(&["compare", ada, boris, "--face-b", "7"], 1);
    assert!(said.contains("there is no face number 7"), "{said}");
    place.output(&["compare", ada], 2);
}

#[test]
fn embed_tells_every_face_of_a_still() {
    let place = Place::new();
    let [ada, boris] = [picture("Ada", 1), picture("Boris", 1)].map(|path| image::open(path).unwrap());
    let (ada, boris) = (ada.into_rgb8(), boris.into_rgb8());
    let mut both = image::RgbImage::new(ada.width() + boris.width(), ada.height().max(boris.height()));
    image::imageops::replace(&mut both, &ada, 0, 0);
    image::imageops::replace(&mut both, &boris, ada.width().into(), 0);
    both.save(place.at("both.png")).unwrap();
    image::RgbImage::new(80, 80).save(place.at("nobody.png")).unwrap();
    let told = place.run(&["embed", "both.png", "nobody.png", "--json"]);
    let stills: Vec<Value> = told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let faces = stills[0]["faces"].as_array().unwrap();
    assert_eq!((stills.len(), faces.len(), &stills[1]["faces"]), (2, 2, &Value::Array(Vec::new())));
    let vector = |face: &Value| -> Vec<f64> {
        face["embedding"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
    };
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
    let [left, right] = [&faces[0], &faces[1]].map(vector);
    assert!((dot(&left, &left) - 1.0).abs() < 1e-4 && dot(&left, &right) < 0.5);
    for (face, number) in faces.iter().zip(1..) {
        assert_eq!(face["number"], number);
        assert_eq!(face["landmarks"].as_array().unwrap().len(), 5);
        assert!(face["score"].as_f64().unwrap() > 0.7 && face["quality"]["size_px"].is_number());
    }
    // A face alone has the same position as the same face beside another.
    let alone: Value =
        serde_json::from_str(&place.run(&["embed", text(&picture("Ada", 1)), "--json"])).unwrap();
    assert!(dot(&vector(&alone["faces"][0]), &left) > 0.9);
    assert!(place.run(&["embed", "both.png", "--mirror"]).starts_with("both.png: 2 faces"));
    fs::write(place.at("text.jpg"), "no picture").unwrap();
    let (told, said) = place.output(&["embed", "text.jpg", "both.png", "--json"], 1);
    assert!(told.lines().count() == 1 && said.contains("text.jpg"), "{told}{said}");
}

#[test]
fn manual_pages_and_completions_are_those_of_the_program() {
    let place = Place::new();
    place.run(&["man", "man/man1"]);
    let page = |name: &str| fs::read_to_string(place.at("man/man1").join(name)).unwrap();
    assert!(page("sphereface.1").contains("sphereface"));
    assert!(page("sphereface-label.1").contains("gallery"));
    assert!(page("sphereface-gallery-check.1").contains("sheet"));
    for (shell, part) in
        [("bash", "complete -F"), ("zsh", "#compdef sphereface"), ("fish", "complete -c sphereface")]
    {
        let script = place.run(&["completions", shell]);
        assert!(script.contains(part) && script.contains("compare"), "{shell}");
    }
    place.output(&["completions", "none"], 2);
}

#[test]
fn make_install_puts_everything_in_its_place() {
    if Command::new("make").arg("--version").output().is_err() {
        println!("skipped: make is not installed");
        return;
    }
    let place = Place::new();
    let make = |target: &str| {
        let done = Command::new("make")
            .args(["-s", "-C", env!("CARGO_MANIFEST_DIR"), target, "PREFIX=/usr"])
            .arg(format!("DESTDIR={}", text(&place.at("root"))))
            .arg(format!("SPHEREFACE={}", env!("CARGO_BIN_EXE_sphereface")))
            .output()
            .unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    make("install");
    for file in [
        "bin/sphereface",
        "share/man/man1/sphereface.1",
        "share/man/man1/sphereface-label.1",
        "share/bash-completion/completions/sphereface",
        "share/zsh/site-functions/_sphereface",
        "share/fish/vendor_completions.d/sphereface.fish",
    ] {
        assert!(place.at("root/usr").join(file).metadata().unwrap().len() > 100, "{file}");
    }
    assert_eq!(mode(&place.at("root/usr/bin/sphereface")), 0o755);
    make("uninstall");
    assert!(!place.at("root/usr/bin/sphereface").exists());
    assert!(fs::read_dir(place.at("root/usr/share/man/man1")).unwrap().next().is_none());
}
