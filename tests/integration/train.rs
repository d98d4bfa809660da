//! Training through the real program: on crops made here, and on real ones if they are on this machine.
#![cfg(all(
    feature = "bundled-models",
    feature = "candle",
    feature = "cli",
    feature = "train",
    feature = "video"
))]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::place::shared_data;
use image::{Rgb, RgbImage};
use sphereface::models::Weights;

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_sphereface"))
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Numbers that are the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as u32 % n
    }
}

/// A drawing of a face, with the features of a person and the light and noise of a picture.
fn portrait(person: u64, picture: u64) -> RgbImage {
    let mut of_person = Random(person * 7919 + 1);
    let mut of_picture = Random(person * 1_000_003 + picture * 101 + 17);
    let mut shade = || [0; 3].map(|_: i32| of_person.below(200) as i32 + 20);
    let (skin, eyes, mouth, hair) = (shade(), shade(), shade(), shade());
    let [eye, width, height, line] = [8, 10, 12, 30].map(|n| of_person.below(n) as i32);
    let light = of_picture.below(50) as i32 - 25;
    let (dx, dy) = (of_picture.below(5) as i32 - 2, of_picture.below(5) as i32 - 2);
    RgbImage::from_fn(96, 112, |x, y| {
        let (x, y) = (x as i32 + dx, y as i32 + dy);
        let near = |cx: i32, cy: i32, rx: i32, ry: i32| {
            (x - cx).pow(2) * ry * ry + (y - cy).pow(2) * rx * rx < rx * rx * ry * ry
        };
        let colour = match () {
            () if near(30, 52, 5 + eye, 5) || near(65, 52, 5 + eye, 5) => eyes,
            () if near(48, 92, 10 + width, 3 + height / 2) => mouth,
            () if y < 12 + line => hair,
            () => skin,
        };
        Rgb(colour.map(|c| (c + light + of_picture.below(21) as i32 - 10).clamp(0, 255) as u8))
    })
}

const PEOPLE: u64 = 6;

/// Folders of crops; the first pictures to train on.
fn people(folder: &Path, pictures: std::ops::Range<u64>) {
    for person in 0..PEOPLE {
        let name = format!("Person_{person}");
        std::fs::create_dir_all(folder.join(&name)).unwrap();
        for picture in pictures.clone() {
            let path = folder.join(&name).join(format!("{name}_{:04}.png", picture + 1));
            portrait(person, picture).save(path).unwrap();
        }
    }
}

/// Pairs of other pictures of the same people, in LFW's form.
fn pairs(path: &Path) {
    let mut text = String::from("30\n");
    for i in 0..30u64 {
        text += &format!("Person_{}\t{}\t{}\n", i % PEOPLE, 1 + i / PEOPLE, 2 + i / PEOPLE);
    }
    for i in 0..30u64 {
        let other = (i + 1 + i / PEOPLE) % PEOPLE;
        let other = if other == i % PEOPLE { (other + 1) % PEOPLE } else { other };
        text += &format!("Person_{}\t{}\tPerson_{other}\t{}\n", i % PEOPLE, 1 + i / PEOPLE, 2 + i / PEOPLE);
    }
    std::fs::write(path, text).unwrap();
}

/// The smallest possible network, with the paper's loss.
const TINY: &str = "\
[network]
depth = 4
channels = [8, 8, 16, 16]
embedding = 32
[loss]
lambda_base = 100.0
lambda_gamma = 0.5
[optimiser]
rate = 0.01
[schedule]
iterations = 120
steps = [90]
[data]
batch = 12
[run]
checkpoint_every = 25
log_every = 5
stuck_after = 100
";

fn train(data: &Path, output: &Path, config: &Path) -> Command {
    let mut command = program();
    command.arg("train").arg(data).arg("--output").arg(output).arg("--config").arg(config).arg("--quiet");
    command.args(["--device", "cpu"]);
    command
}

fn setup() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let (data, config) = (folder.path().join("data"), folder.path().join("tiny.toml"));
    people(&data, 0..6);
    std::fs::write(&config, TINY).unwrap();
    (folder, data, config)
}

fn ok(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    output
}

/// Lines of the metrics without what depends on the clock.
fn metrics(folder: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(folder.join("metrics.jsonl")).unwrap();
    let mut lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for line in &mut lines {
        let line = line.as_object_mut().unwrap();
        line.remove("images_per_s");
        line.remove("waiting");
    }
    lines
}

/// Waits until the run has written that many lines, then sends a signal.
fn signal_at(child: &mut Child, folder: &Path, lines: usize, signal: &str) {
    let start = Instant::now();
    let written = || std::fs::read_to_string(folder.join("metrics.jsonl")).map_or(0, |t| t.lines().count());
    while written() < lines {
        assert!(start.elapsed() < Duration::from_secs(120), "the run does not get on");
        assert!(child.try_wait().unwrap().is_none(), "the run ended before it was signalled");
        std::thread::sleep(Duration::from_millis(2));
    }
    ok(Command::new("kill").arg(format!("-{signal}")).arg(child.id().to_string()));
}

fn lfw_accuracy(model: &Path, pairs: &Path, images: &Path) -> f64 {
    let output = ok(program()
        .args(["eval", "lfw", "--aligned", "--json", "--model"])
        .arg(model)
        .arg(pairs)
        .arg(images));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    json["verification"]["accuracy"].as_f64().unwrap()
}

#[test]
#[cfg(unix)]
fn a_run_that_is_stopped_and_resumed_separates_people_as_one_that_is_not() {
    stopped_and_resumed("f32");
}

/// In bf16 too, on machines that train in it.
#[test]
#[cfg(unix)]
fn a_run_in_bf16_resumes_with_the_same_bits() {
    let (folder, data, config) = setup();
    let run = folder.path().join("run");
    let result =
        train(&data, &run, &config).args(["--precision", "bf16", "--iterations", "1"]).output().unwrap();
    if !result.status.success() {
        assert!(text(&result).contains("this CPU has no AMX"), "{}", text(&result));
        return println!("skipped: this machine has no AMX, or the system does not grant it");
    }
    stopped_and_resumed("bf16");
}

/// Stops a run by a signal and by a kill, and compares it with a run of its own.
#[cfg(unix)]
fn stopped_and_resumed(precision: &str) {
    let (folder, data, config) = setup();
    let settings = format!("{TINY}precision = \"{precision}\"\n");
    std::fs::write(&config, settings).unwrap();
    let whole = folder.path().join("whole");
    ok(&mut train(&data, &whole, &config));
    let parts = folder.path().join("parts");
    let spawn = |resume: bool| {
        let mut command = train(&data, &parts, &config);
        if resume {
            command.arg("--resume");
        }
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    // After a signal to stop, nothing is lost.
    let mut child = spawn(false);
    signal_at(&mut child, &parts, 4, "TERM");
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    assert!(String::from_utf8_lossy(&output.stdout).contains("continue with --resume"));
    // After a kill, the iterations since the last checkpoint are repeated.
    let mut child = spawn(true);
    signal_at(&mut child, &parts, 12, "KILL");
    assert!(!child.wait_with_output().unwrap().status.success());
    let output = train(&data, &parts, &config).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output).contains("already holds a training run"), "{}", text(&output));
    // Without --config, the settings are those of the checkpoint.
    let mut command = program();
    command.arg("train").arg(&data).arg("--output").arg(&parts).args(["--resume", "--device", "cpu"]);
    let said = text(&ok(&mut command));
    assert!(said.starts_with("the network runs on the CPU with"), "{said}");
    assert!(said.contains(&format!("; products are computed in {precision}\n")), "{said}");
    assert!(said.contains("36 images of 6 identities\ncontinuing after iteration"), "{said}");
    let weights = |folder: &Path| Weights::load(&folder.join("model.safetensors")).unwrap();
    assert_eq!(weights(&parts).tensors, weights(&whole).tensors, "to the bit");
    assert_eq!(metrics(&parts), metrics(&whole));
    let svg = std::fs::read_to_string(whole.join("curves.svg")).unwrap();
    assert!(svg.contains(">loss<") && svg.contains(">lambda<"), "{svg}");

    let lines = metrics(&whole);
    let of = |line: &serde_json::Value, key: &str| line[key].as_f64().unwrap();
    let (first, last) = (&lines[0], &lines[lines.len() - 1]);
    assert!(of(last, "accuracy") > 0.95, "{last}");
    assert!(of(last, "angle_deg") < of(first, "angle_deg") - 20.0, "{first} {last}");
    // Other pictures of the people.
    let others = folder.path().join("others");
    people(&others, 0..8);
    let list = folder.path().join("pairs.txt");
    pairs(&list);
    let accuracy = lfw_accuracy(&whole.join("model.safetensors"), &list, &others);
    assert!(accuracy > 0.85, "{accuracy}");
    let output = ok(program().args(["models", "show"]).arg(whole.join("model.safetensors")));
    assert!(String::from_utf8_lossy(&output.stdout).contains("36 images of 6 identities"));
}

#[test]
fn real_people_are_told_apart() {
    let (Some(faces), Some(lfw)) = (shared_data("faces"), shared_data("lfw-dev")) else { return };
    // The six people with most images, by RecordIO and with the teacher's help, and validated on a
    // few LFW crops.
    let folder = tempfile::tempdir().unwrap();
    let list = std::fs::read_to_string(lfw.join("train-pairs.txt")).unwrap();
    let lines: Vec<&str> = list.lines().collect();
    let few: Vec<&str> = lines[1..41].iter().chain(&lines[1101..1141]).copied().collect();
    let pairs = folder.path().join("pairs.txt");
    std::fs::write(&pairs, format!("40\n{}\n", few.join("\n"))).unwrap();
    let output = folder.path().join("run");
    let mut command = program();
    command.arg("train").arg(&faces).arg("--output").arg(&output);
    command.args([
        "--preset",
        "distill-small",
        "--depth",
        "4",
        "--channels",
        "16,24,32,48",
        "--embedding",
        "64",
    ]);
    command.args([
        "--loss-weight",
        "1",
        "--loss",
        "a-softmax",
        "--lambda-min",
        "20",
        "--lambda-gamma",
        "1",
        "--min-images",
        "250",
    ]);
    command.args(["--small-classes", "drop", "--iterations", "80", "--batch", "32", "--warmup", "5"]);
    command.args(["--rate", "0.004", "--log-every", "10", "--validate-every", "40", "--threads", "2"]);
    command.arg("--teacher").arg(faces.join("teacher.npy")).arg("--pairs").arg(&pairs);
    command.arg("--pairs-images").arg(lfw.join("train-crops"));
    ok(&mut command);
    let lines = metrics(&output);
    let training: Vec<_> = lines.iter().filter(|line| line["loss"].is_number()).collect();
    let validations = lines.iter().filter(|line| line["validation_accuracy"].is_number()).count();
    assert_eq!((training.len(), validations), (8, 2));
    let of = |line: &serde_json::Value, key: &str| line[key].as_f64().unwrap();
    let (first, last) = (training[0], training[7]);
    assert!(of(last, "accuracy") > 0.55 && of(last, "accuracy") > of(first, "accuracy"), "{first} {last}");
    assert!(of(last, "teacher_loss") < 0.9 * of(first, "teacher_loss"), "{first} {last}");
}

#[test]
fn what_cannot_be_trained_is_told_in_one_sentence() {
    let (folder, data, config) = setup();
    let output = folder.path().join("run");
    let refusal = |code: i32, arguments: &[&str]| {
        let result = train(&data, &output, &config).args(arguments).output().unwrap();
        let said = text(&result);
        assert_eq!(result.status.code(), Some(code), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        said
    };
    assert!(refusal(2, &["--depth", "5"]).contains("network.depth = 5 is invalid: use 4, 10"));
    assert!(refusal(2, &["--preset", "best"]).contains("choose one of sphereface20-casia"));
    assert!(refusal(2, &["--resume"]).contains("holds no checkpoint"));
    assert!(refusal(2, &["--loss-weight", "0"]).contains("or a teacher"));
    assert!(refusal(1, &["--min-images", "7"]).contains("identity 'Person_0' has 6 images, and 5 more"));
    assert!(refusal(1, &["--init", "nothing.safetensors"]).contains("nothing.safetensors"));
    let mut command = program();
    command.arg("train").arg(&data).arg("--output").arg(&output).args(["--device", "cuda:99"]);
    let result = command.output().unwrap();
    let (built, said) = (cfg!(feature = "cuda"), text(&result));
    assert_eq!(result.status.code(), Some(if built { 1 } else { 2 }), "{said}");
    assert!(said.contains(if built { "cannot be used" } else { "tools/cuda.sh" }), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(!output.exists(), "nothing is left behind");
    // Files of others are not replaced, not even the settings that are given.
    for name in ["config.toml", "metrics.jsonl", "curves.svg", "model.safetensors"] {
        std::fs::create_dir(&output).unwrap();
        let own = output.join(name);
        std::fs::copy(&config, &own).unwrap();
        assert!(refusal(2, &[]).contains(&format!("{name} would be replaced: choose another --output")));
        assert_eq!(std::fs::read(&own).unwrap(), std::fs::read(&config).unwrap());
        std::fs::remove_dir_all(&output).unwrap();
    }
    // What a run leaves that ends before its first checkpoint is replaced.
    std::fs::create_dir(&output).unwrap();
    let settings = program().args(["train", "--print-config", "--config"]).arg(&config).output().unwrap();
    std::fs::write(output.join("config.toml"), &settings.stdout).unwrap();
    std::fs::write(output.join("metrics.jsonl"), "").unwrap();
    ok(train(&data, &output, &config).args(["--iterations", "1"]));
    assert!(refusal(2, &[]).contains("already holds a training run"));
    std::fs::remove_dir_all(&output).unwrap();
    std::fs::write(&output, "a file").unwrap();
    let said = refusal(1, &[]);
    assert!(said.contains("there is no checkpoint yet") && !said.contains("--resume"), "{said}");
    std::fs::remove_file(&output).unwrap();
    // Instructions without AMX.
    let result = train(&data, &output, &config)
        .args(["--precision", "bf16"])
        .env("SPHEREFACE_ISA", "portable")
        .output()
        .unwrap();
    assert_eq!(result.status.code(), Some(2), "{}", text(&result));
    assert!(text(&result).contains("run.precision = bf16 is invalid: it would be slower than f32 here"));

    let wrong = folder.path().join("wrong.toml");
    std::fs::write(&wrong, "[loss]\nlamda_min = 5\n").unwrap();
    let result = train(&data, &output, &wrong).output().unwrap();
    assert_eq!(result.status.code(), Some(2));
    assert!(
        text(&result)
            .contains("wrong.toml is not a training configuration (line 2: unknown field `lamda_min`")
    );

    // An unreadable image ends the run when it is needed, with a checkpoint to continue from.
    let broken = data.join("Person_3/Person_3_0002.png");
    let whole = std::fs::read(&broken).unwrap();
    std::fs::write(&broken, b"no image").unwrap();
    let said = refusal(1, &["--iterations", "6"]);
    assert!(said.contains("Person_3_0002.png cannot be used"), "{said}");
    std::fs::write(&broken, whole).unwrap();
    ok(train(&data, &output, &config).args(["--iterations", "6", "--resume"]));

    // A checkpoint of another network, and of other data.
    assert!(refusal(1, &["--resume", "--depth", "10"]).contains("its network is sphereface4"));
    std::fs::remove_dir_all(data.join("Person_5")).unwrap();
    assert!(refusal(1, &["--resume"]).contains("the data set has changed"));
    let error = refusal(1, &["--resume", "--channels", "8,8,16,24"]);
    assert!(error.contains("but the run's is sphereface4-8x8x16x24"), "{error}");
}

#[test]
fn weights_that_are_trained_on_see_other_samples() {
    let (folder, data, config) = setup();
    // A rate that changes only the last digits: losses differ only if the samples do.
    let losses = |name: &str, further: &[&str]| -> Vec<f64> {
        let output = folder.path().join(name);
        ok(train(&data, &output, &config).args(["--rate", "1e-9", "--log-every", "1"]).args(further));
        metrics(&output).iter().map(|line| line["loss"].as_f64().unwrap()).collect()
    };
    let near = |a: f64, b: f64| (a / b - 1.0).abs() < 1e-5;
    let first = losses("first", &["--iterations", "2"]);
    let init = folder.path().join("init.safetensors");
    std::fs::copy(folder.path().join("first/model.safetensors"), &init).unwrap();
    let from_init = ["--init", init.to_str().unwrap(), "--iterations"];
    let second = losses("second", &[&from_init[..], &["2"]].concat());
    assert!(!near(first[0], second[0]) && !near(first[1], second[1]), "{first:?} and {second:?}");
    // The order is the same when the run is resumed, even if the initial weights have changed.
    losses("third", &[&from_init[..], &["1"]].concat());
    losses("first", &["--iterations", "3", "--resume"]);
    std::fs::copy(folder.path().join("first/model.safetensors"), &init).unwrap();
    let third = losses("third", &[&from_init[..], &["2", "--resume"]].concat());
    assert_eq!(third, second);
}

#[test]
fn divergence_is_explained_and_the_last_checkpoint_kept() {
    let (folder, data, config) = setup();
    let output = folder.path().join("run");
    ok(train(&data, &output, &config).args(["--iterations", "10"]));
    let checkpoint = std::fs::read(output.join("checkpoint.safetensors")).unwrap();
    let result = train(&data, &output, &config)
        .args(["--resume", "--rate", "100", "--loss", "softmax"])
        .output()
        .unwrap();
    let said = text(&result);
    assert_eq!(result.status.code(), Some(1), "{said}");
    assert!(
        said.contains("training has diverged") && said.contains("checkpoint of iteration 10 is kept"),
        "{said}"
    );
    assert_eq!(std::fs::read(output.join("checkpoint.safetensors")).unwrap(), checkpoint);
    // With a rate of almost 0, the loss stays at ln(6).
    let stuck = folder.path().join("stuck");
    let result = train(&data, &stuck, &config)
        .args(["--rate", "1e-12", "--loss", "normalised-softmax", "--scale", "0.1", "--stuck-after", "15"])
        .output()
        .unwrap();
    assert!(text(&result).contains("still 1.79"), "{}", text(&result));
}

/// A file system without room, by a limit on the size of files.
#[test]
#[cfg(unix)]
fn a_full_disk_loses_nothing() {
    let (folder, data, config) = setup();
    let output = folder.path().join("run");
    ok(train(&data, &output, &config).args(["--iterations", "10"]));
    let checkpoint = std::fs::read(output.join("checkpoint.safetensors")).unwrap();
    let limited = "trap '' XFSZ; ulimit -f 20; exec \"$@\"";
    let result = Command::new("sh")
        .args(["-c", limited, "sh", env!("CARGO_BIN_EXE_sphereface"), "train"])
        .args([&data, Path::new("--config"), &config, Path::new("--output"), &output])
        .arg("--resume")
        .output()
        .unwrap();
    let said = text(&result);
    assert_eq!(result.status.code(), Some(1), "{said}");
    assert!(said.contains("checkpoint.safetensors cannot be written") && said.contains("--resume"), "{said}");
    assert_eq!(std::fs::read(output.join("checkpoint.safetensors")).unwrap(), checkpoint);
    let leftovers = std::fs::read_dir(&output).unwrap().filter(|entry| {
        entry.as_ref().is_ok_and(|entry| entry.file_name().to_string_lossy().ends_with(".part"))
    });
    assert_eq!(leftovers.count(), 0);
    ok(train(&data, &output, &config).args(["--iterations", "20", "--resume"]));
}

#[test]
fn settings_are_printed_and_read_back() {
    let output = ok(program().args(["train", "--print-config", "--loss", "arcface", "--margin", "0.4"]));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("kind = \"arcface\"") && text.contains("iterations = 28000"), "{text}");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.toml");
    std::fs::write(&path, &text).unwrap();
    let again = ok(program().args(["train", "--print-config", "--config"]).arg(&path));
    assert_eq!(String::from_utf8(again.stdout).unwrap(), text);
}

/// Each loss works with its default settings.
#[test]
fn loss_defaults_every_loss_trains_by_its_name_alone() {
    let (folder, data, config) = setup();
    for loss in [
        "a-softmax",
        "softmax",
        "normalised-softmax",
        "sphereface-r-v1",
        "sphereface-r-v2",
        "sphereface2",
        "cosface",
        "arcface",
    ] {
        let output = folder.path().join(loss);
        let mut command = program();
        command.arg("train").arg(&data).arg("--output").arg(&output).arg("--config").arg(&config);
        ok(command.args(["--device", "cpu", "--quiet", "--iterations", "10", "--loss", loss]));
        assert!(output.join("model.safetensors").is_file(), "{loss}");
        // And with the settings of the first preset, which --print-config prints.
        let told = ok(program().args(["train", "--print-config", "--loss", loss]));
        let told = String::from_utf8(told.stdout).unwrap();
        assert!(told.contains(&format!("kind = \"{loss}\"")), "{told}");
    }
}
