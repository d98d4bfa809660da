//! Runs the commands in docs/service.md.

use std::path::Path;
use std::process::{Command, Output};

use crate::serve::client::{LIMIT, Service, place, sample, still};

fn block(kind: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/service.md");
    let text = std::fs::read_to_string(path).unwrap();
    let start = format!("```{kind}\n");
    let (_, rest) = text.split_once(&start).unwrap();
    rest.split_once("```").unwrap().0.to_owned()
}

/// Runs a program; `None`, with a message, if it is not installed.
fn run(command: &mut Command) -> Option<Output> {
    match command.output() {
        Ok(output) => Some(output),
        Err(error) => {
            eprintln!("skipped: {:?}: {error}", command.get_program());
            None
        }
    }
}

#[test]
fn every_line_for_curl_works() {
    let place = place();
    std::fs::write(place.path().join("ada.jpg"), still("Ada", 3)).unwrap();
    std::fs::write(place.path().join("chloe.jpg"), still("Chloé", 1)).unwrap();
    std::fs::copy(sample("sample.mp4"), place.path().join("sample.mp4")).unwrap();
    let made = Command::new(env!("CARGO_BIN_EXE_sphereface"))
        .args(["library", "add", "ada.jpg"])
        .current_dir(place.path())
        .env_remove("SPHEREFACE_DATABASE")
        .status();
    assert!(made.unwrap().success());
    std::fs::write(place.path().join("serve.toml"), "[library]\npath = \"sphereface-library\"\n").unwrap();
    let service = Service::start(place.path(), &["serve.toml"]);
    if run(Command::new("curl").arg("--version")).is_none() {
        return;
    }
    let lines = block("sh");
    let commands: Vec<&str> = lines.lines().filter(|line| line.starts_with("curl")).collect();
    assert!(commands.len() > 12);
    for line in commands {
        let output = Command::new("sh")
            .args(["-c", line])
            .env("S", format!("http://{}", service.address))
            .current_dir(place.path())
            .output()
            .unwrap();
        let (answer, error) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success() && !answer.is_empty(), "{line}: {answer}{error}");
        if line.contains("@ada.jpg $S/api/v1/recognise") && !line.contains("-F") {
            assert!(answer.contains("\"name\":\"Ada\""), "{answer}");
        }
    }
}

#[test]
fn the_client_in_python_names_people_in_ten_lines() {
    let place = place();
    let program = block("python");
    assert!(program.lines().count() <= 10);
    std::fs::write(place.path().join("ada.jpg"), still("Ada", 3)).unwrap();
    let service = Service::start(place.path(), &[]);
    let mut python = Command::new("python3");
    let address = format!("http://{}/", service.address);
    python.args(["-c", &program, &address, "ada.jpg"]).current_dir(place.path());
    let Some(output) = run(&mut python) else { return };
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(
        told.starts_with("Ada [") && told.lines().count() == 1,
        "{told}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[cfg(target_os = "linux")]
#[test]
fn a_service_manager_is_told_when_it_is_ready_reloads_and_stops() {
    let place = place();
    let path = place.path().join("notify");
    let socket = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    let told = || {
        let mut text = [0; 64];
        let length = socket.recv(&mut text).unwrap();
        String::from_utf8_lossy(&text[..length]).into_owned()
    };
    let mut service = Service::start_with(place.path(), &[], &[("NOTIFY_SOCKET", path.to_str().unwrap())]);
    assert_eq!(told(), "READY=1");
    assert_eq!(service.get("/api/v1/ready").ok()["ready"], true);
    service.signal("HUP");
    assert_eq!([told(), told()], ["RELOADING=1", "READY=1"]);
    service.signal("TERM");
    assert_eq!(told(), "STOPPING=1");
    assert_eq!(service.ended(), Some(0));
}

#[cfg(target_os = "linux")]
#[test]
fn the_unit_for_systemd_is_one() {
    let folder = tempfile::tempdir().unwrap();
    let text =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/sphereface.service"));
    let text = text.unwrap();
    assert!(text.contains("ExecStart=/usr/local/bin/sphereface serve "));
    let unit = folder.path().join("sphereface.service");
    std::fs::write(&unit, text.replace("/usr/local/bin/sphereface", env!("CARGO_BIN_EXE_sphereface")))
        .unwrap();
    let Some(output) = run(Command::new("systemd-analyze").arg("verify").arg(&unit)) else { return };
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !told.contains("sphereface.service"), "{told}");
}
