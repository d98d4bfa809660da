//! What docs/service.md says works.

use std::path::Path;
use std::process::{Command, Output};

use crate::client::{Service, place, still};

fn block(kind: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/service.md");
    let text = std::fs::read_to_string(path).unwrap();
    let start = format!("```{kind}\n");
    let (_, rest) = text.split_once(&start).unwrap();
    rest.split_once("```").unwrap().0.to_owned()
}

/// Runs a program; `None`, and a word about it, where it is not installed.
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
    let service = Service::start(place.path(), &[]);
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
