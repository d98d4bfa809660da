//! Several workers on a PostgreSQL database that the test starts itself.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use super::{Place, Worker, json, media, until};

/// A server in its own folder that listens on no network.
pub struct Server {
    folder: tempfile::TempDir,
    programs: PathBuf,
}

impl Server {
    /// `None`, with a message, if PostgreSQL is missing.
    pub fn start() -> Option<Self> {
        let Some(programs) = programs() else {
            println!("skipped: PostgreSQL is not installed");
            return None;
        };
        // The socket's path must be short.
        let folder = tempfile::Builder::new().prefix("pg").tempdir_in("/tmp").unwrap();
        let server = Self { folder, programs };
        if is_root() {
            let owner = Command::new("chown").arg("postgres").arg(server.folder.path()).status().unwrap();
            assert!(owner.success());
        }
        server.run("initdb", &["-D", &server.data(), "-U", "me", "--auth=trust", "--no-sync"]);
        server.control("start");
        server.run("createdb", &["-h", server.folder.path().to_str().unwrap(), "-U", "me", "faces"]);
        Some(server)
    }

    fn data(&self) -> String {
        self.folder.path().join("data").to_str().unwrap().to_owned()
    }

    /// Runs one of its programs, which refuse to run as root.
    fn run(&self, program: &str, arguments: &[&str]) {
        let program = self.programs.join(program);
        let mut command = match is_root() {
            true => {
                let mut command = Command::new("setpriv");
                command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(program);
                command
            }
            false => Command::new(program),
        };
        let log = std::fs::File::create(self.folder.path().join("run.log")).unwrap();
        let status = command
            .args(arguments)
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .status()
            .unwrap();
        let log = std::fs::read_to_string(self.folder.path().join("run.log")).unwrap();
        assert!(status.success(), "{arguments:?}: {log}");
    }

    fn control(&self, what: &str) {
        let socket = self.folder.path().to_str().unwrap();
        let options = format!("-c listen_addresses='' -c fsync=off -k {socket}");
        let log = self.folder.path().join("server.log");
        let log = log.to_str().unwrap();
        self.run("pg_ctl", &["-D", &self.data(), "-w", "-m", "immediate", "-l", log, "-o", &options, what]);
    }

    /// A session of its own.
    fn session(&self) -> Session {
        let mut child = self.client(&[]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let input = child.stdin.take().unwrap();
        Session { child, input }
    }

    /// The answer to a question, as text.
    fn ask(&self, question: &str) -> String {
        let answer = self.client(&["-c", question]).output().unwrap();
        assert!(answer.status.success(), "{}", String::from_utf8_lossy(&answer.stderr));
        String::from_utf8(answer.stdout).unwrap().trim().to_owned()
    }

    fn client(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.programs.join("psql"));
        command.arg("-h").arg(self.folder.path()).args(["-U", "me", "-XAtq"]).args(arguments).arg("faces");
        command
    }

    fn address(&self) -> String {
        format!("postgres://me@localhost/faces?host={}", self.folder.path().display())
    }
}

/// Statements to the server from another client.
struct Session {
    child: Child,
    input: ChildStdin,
}

impl Session {
    fn say(&mut self, statements: &str) {
        writeln!(self.input, "{statements}").unwrap();
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.control("stop");
            return;
        }
        let _ = Command::new("pkill").args(["-9", "-f", &self.data()]).status();
    }
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|id| id.stdout == b"0\n")
}

/// The folder of the newest server programs.
fn programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
    let mut folders: Vec<PathBuf> = versions.map(|entry| entry.unwrap().path().join("bin")).collect();
    folders.retain(|folder| folder.join("initdb").is_file());
    folders.sort();
    folders.pop()
}

pub fn place(server: &Server) -> Place {
    Place { database: Some(server.address()), ..Place::new() }
}

#[test]
fn in_postgresql_what_failed_is_tried_again_after_a_pause() {
    let (Some(media), Some(server)) = (media(), Server::start()) else { return };
    super::care::is_tried_again_after_a_pause(media, &place(&server));
}

/// Workers without their own gallery use the shared one, and an enrolment by one is visible to all.
#[test]
fn one_gallery_serves_all_workers() {
    let (Some(media), Some(server)) = (media(), Server::start()) else { return };
    // Two machines, one with the folder of the analyses and one that can access it.
    let (one, other) = (place(&server), place(&server));
    std::fs::create_dir(one.path("lib")).unwrap();
    std::os::unix::fs::symlink(one.path("lib"), other.path("lib")).unwrap();
    one.run(&["gallery", "put", &media.text("gallery")]);
    one.run(&["add", &media.text("media/photos")]);
    other.run(&["work"]);
    let found = json(&one.run(&["find", "Ada", "--json"]));
    assert!(!found.as_array().unwrap().is_empty());
    let strangers = json(&one.run(&["strangers", "--json"]));
    let told = one.run(&["name", &strangers[0]["number"].to_string(), "Chloé"]);
    assert!(told.contains("the shared gallery"), "{told}");
    other.run(&["gallery", "get", "copy"]);
    let people = super::run(other.folder.path(), &["gallery", "list", "--gallery", "copy"]);
    assert!(people.contains("Chloé") && people.contains("Ada"), "{people}");
    // Two concurrent changes: the second gets an error.
    one.run(&["gallery", "get", "copy"]);
    for (place, name) in [(&one, "Ada"), (&other, "Boris")] {
        super::run(place.folder.path(), &["gallery", "remove", name, "--gallery", "copy"]);
    }
    one.run(&["gallery", "put", "copy"]);
    let (code, error) = other.fail(&["gallery", "put", "copy"]);
    assert_eq!(code, 1);
    assert!(error.contains("has changed since"), "{error}");
    let (_, error) = other.fail(&["find", "Ada"]);
    assert!(error.contains("nobody in the library is named Ada"), "{error}");
    other.run(&["forget", "Boris"]);
    let shown = json(&one.run(&["gallery", "show", "--json"]));
    assert_eq!(shown["change"], 4, "{shown}");
}

/// A watcher is notified of an enrolment while it waits for files.
#[test]
fn an_enrolment_is_known_to_all_within_seconds() {
    let (Some(media), Some(server)) = (media(), Server::start()) else { return };
    let place = place(&server);
    place.run(&["gallery", "put", &media.text("gallery")]);
    place.run(&["add", &media.text("media/photos")]);
    // The folders are searched again only after an hour, so earlier changes are not due to that.
    let arguments = ["watch", "--every", "3600", "--heartbeat", "1"];
    let child = super::command(place.folder.path(), &place.arguments(&arguments))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let watcher = Worker { child };
    until("the photos", || place.status()["photos"]["done"] == 2);
    let named = |place: &Place| place.status()["named"].as_i64().unwrap();
    let before = named(&place);
    assert!(before > 0);
    place.run(&["gallery", "get", "copy"]);
    super::run(place.folder.path(), &["gallery", "remove", "Ada", "--gallery", "copy"]);
    place.run(&["gallery", "put", "copy"]);
    let told = std::time::Instant::now();
    // `status` decides nothing: the names are those that the watcher stored.
    until("another name", || named(&place) < before);
    assert!(told.elapsed() < std::time::Duration::from_secs(5), "{:?}", told.elapsed());
    watcher.signal("-INT");
    let (well, _, error) = watcher.wait();
    assert!(well, "{error}");
    assert!(error.contains("the gallery has changed"), "{error}");
}

/// One of three workers is killed in the middle of a file, one is paused for longer than three heartbeats,
/// and the database is restarted. Every file is processed once, and the result is that of one worker on a
/// folder.
#[test]
fn workers_die_pause_and_lose_the_database_and_every_file_is_done_once() {
    let (Some(media), Some(server)) = (media(), Server::start()) else { return };
    let alone = Place::new();
    alone.run(&["add", &media.text("media")]);
    alone.run(&["work", "--gallery", &media.text("gallery")]);

    let place = place(&server);
    assert_eq!(json(&place.run(&["add", &media.text("media"), "--json"]))["new"], 5);
    let (victim, sleeper, survivor) = (place.worker(media), place.worker(media), place.worker(media));
    until("three workers", || place.status()["workers"] == 3);
    std::thread::sleep(std::time::Duration::from_millis(500));
    victim.signal("-9");
    sleeper.signal("-STOP");
    assert!(!victim.wait().0);
    server.control("restart");
    let (well, told, error) = survivor.wait();
    assert!(well, "{error}");
    assert!(!told.is_empty(), "{error}");
    let status = place.status();
    assert_eq!((&status["videos"]["done"], &status["photos"]["done"]), (&3.into(), &2.into()), "{status}");
    // The survivor finished the file of the paused worker, whose own result is dropped.
    sleeper.signal("-CONT");
    let (well, told, error) = sleeper.wait();
    assert!(well, "{error}");
    let lost = told.lines().map(json).filter(|line| line["state"] == "lost").count();
    let done = told.lines().map(json).filter(|line| line["state"] == "done").count();
    // It was in the middle of a file, unless it was stopped between two of them.
    assert!(lost == 1 || done > 0 || told.is_empty(), "{told}");
    let place_has = place.everything();
    assert_eq!(place_has, alone.everything());
    assert_eq!(place_has.1.len(), 5);
}

/// A worker is stopped in the middle of the transaction that stores its results, with locks on what the others need:
/// the database must end its session.
#[test]
fn a_worker_that_is_stopped_in_a_transaction_holds_up_nobody() {
    let (Some(media), Some(server)) = (media(), Server::start()) else { return };
    let place = place(&server);
    place.run(&["add", &media.text("media/photos/one.png")]);
    let count = |what: &str| server.ask(&format!("SELECT count(*) FROM {what}"));
    let mut other = server.session();
    other.say("BEGIN; LOCK TABLE track IN EXCLUSIVE MODE;");
    until("the lock", || {
        count("pg_locks WHERE mode = 'ExclusiveLock' AND relation = 'track'::regclass") == "1"
    });
    let sleeper = place.worker(media);
    until("a worker that waits for the lock", || {
        count("pg_stat_activity WHERE wait_event_type = 'Lock'") == "1"
    });
    sleeper.signal("-STOP");
    other.say("COMMIT;");
    until("a transaction in which nothing happens", || {
        count("pg_stat_activity WHERE state = 'idle in transaction'") == "1"
    });
    let (well, told, error) = place.worker(media).wait();
    assert!(well, "{error}");
    let of = |told: &str, state: &str| told.lines().map(json).filter(|line| line["state"] == state).count();
    assert_eq!((of(&told, "done"), of(&told, "lost")), (1, 0), "{told}");
    // The stopped one learns that its results are not wanted any more.
    sleeper.signal("-CONT");
    let (well, told, error) = sleeper.wait();
    assert!(well, "{error}");
    assert_eq!((of(&told, "done"), of(&told, "lost")), (0, 1), "{told} {error}");
    assert_eq!(place.status()["photos"]["done"], 1);
}

#[test]
fn a_database_answers_as_a_folder_does() {
    let (Some(media), Some(server)) = (media(), Server::start()) else { return };
    let place = place(&server);
    place.run(&["add", &media.text("media/photos")]);
    place.run(&["work", "--gallery", &media.text("gallery")]);
    let found = json(&place.run(&["find", "Ada", "--json"]));
    assert!(!found.as_array().unwrap().is_empty());
    let people = json(&place.run(&["people", "--json"]));
    assert!(people.as_array().unwrap().iter().any(|one| one["name"] == "Boris"), "{people}");
    let strangers = json(&place.run(&["strangers", "--json"]));
    let number = strangers[0]["number"].to_string();
    place.run(&["name", &number, "Chloé", "--gallery", &place.path("own")]);
    let found = json(&place.run(&["find", "Chloé", "--json"]));
    assert_eq!(found.as_array().unwrap().len(), 1);
    place.run(&["forget", "Chloé"]);
    assert_eq!(place.fail(&["find", "Chloé"]).0, 1);
    assert_eq!(place.run(&["retry", "--all"]).trim(), "due again: 2 files");
    place.run(&["work"]);
    assert_eq!(place.run(&["forget", "--files", &media.text("media")]).trim(), "2 files forgotten");
    let shown = place.run(&["status"]);
    assert!(shown.starts_with("library postgres://me@localhost/faces\n"), "{shown}");
    assert!(Path::new(&place.path("lib/analyses")).is_dir());
    assert!(!Path::new(&place.path("lib/catalogue.sqlite")).exists());
    drop(server);
    let (code, error) = place.fail(&["status"]);
    assert_eq!(code, 1);
    assert!(error.contains("postgres://me@localhost/faces cannot be used"), "{error}");
}
