//! `sphereface serve`: cameras and a service.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};

use super::UsageError;
use super::options::{self, DeviceArgs, ModelArgs, PrecisionArgs, ThreadArgs};
use sphereface::engine::Engine;
use sphereface::media::Input;
use sphereface::nn::Device;
use sphereface::serve::store::Store;
use sphereface::serve::{
    Config, ConfigError, JobProgram, NewTokens, ServeError, Service, ServiceOptions, Settings, SourceConfig,
    TEMPLATE, run_job,
};

/// Default file of `--init`.
const DEFAULT_FILE: &str = "serve.toml";

/// Run the service: cameras, web pages, HTTP API and events
///
/// Sources are set in a TOML file or with --source. The address is printed on standard output once the
/// service listens. On 127.0.0.1 every local user has full access; on any other address a token is
/// required: one for readers and one for administrators are shown once, at the first start. SIGHUP
/// rereads the configuration and the galleries. Ctrl-C or SIGTERM stops the service after everything
/// is stored.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    sphereface serve --source door=rtsp://192.168.1.20/stream2 --gallery family\n  \
    sphereface serve --init cameras.toml && sphereface serve cameras.toml\n  \
    sphereface serve cameras.toml --listen 0.0.0.0:8470\n  \
    curl --data-binary @group.jpg http://127.0.0.1:8470/api/v1/recognise")]
pub struct ServeArgs {
    /// Configuration file [default: none; every setting at its default]
    config: Option<PathBuf>,
    /// Write a configuration file with every setting and its default, and exit
    #[arg(long, conflicts_with_all = ["listen", "gallery", "data", "source", "repeat", "new_tokens"])]
    init: bool,
    /// Address and port to listen on; port 0 takes a free one [default: 127.0.0.1:8470]
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// Folder of the people to name [default: gallery]
    #[arg(long, value_name = "DIR")]
    gallery: Option<PathBuf>,
    /// Folder of events, strangers and tokens [default: sphereface-data]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// A source, added to those of the file or replacing the one of that name: rtsp://...,
    /// http://..., webcam:0, a file, or gst:PIPELINE
    #[arg(long, value_name = "NAME=INPUT", value_parser = source)]
    source: Vec<(String, String)>,
    /// Play files of --source in a loop
    #[arg(long, requires = "source")]
    repeat: bool,
    /// Create new tokens, show them, and exit; the old ones are invalid from the next start on
    #[arg(long)]
    new_tokens: bool,
    /// Format of the log on standard error
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log: LogFormat,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    precision: PrecisionArgs,
    #[command(flatten, next_help_heading = "Running")]
    device: DeviceArgs,
    #[command(flatten, next_help_heading = "Running")]
    threads: ThreadArgs,
}

/// The format of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    /// Lines for people.
    Text,
    /// One object per line, for machines.
    Json,
}

impl LogFormat {
    /// Writes the log of this process in this format.
    fn start(self) {
        let log = tracing_subscriber::fmt().with_writer(std::io::stderr).with_target(false);
        let set = match self {
            Self::Text => log.with_ansi(false).try_init(),
            Self::Json => log.json().try_init(),
        };
        if let Err(error) = set {
            errln!("warning: the log cannot be written: {error}");
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

/// Reads `NAME=INPUT`.
fn source(text: &str) -> Result<(String, String), String> {
    let parts = text.split_once('=').filter(|(name, input)| !name.is_empty() && !input.is_empty());
    let (name, input) = parts.ok_or_else(|| {
        format!("`{text}` is not a source: give a name and an input, for example door=rtsp://192.168.1.20/1")
    })?;
    Ok((name.to_owned(), input.to_owned()))
}

impl ServeArgs {
    /// Serves until a signal comes.
    pub fn run(self) -> Result<()> {
        if self.init {
            return init(self.config.as_deref().unwrap_or(Path::new(DEFAULT_FILE)));
        }
        let settings = self.settings()?;
        if self.new_tokens {
            tell(&NewTokens::make(&Store::open(&settings.config.data)?)?);
            return Ok(());
        }
        self.log.start();
        Service::prepare_memory();
        let options = self.options()?;
        let signals = Signals::watch()?;
        let (service, made) = Service::start(settings, &options).map_err(refused)?;
        if let Some(made) = &made {
            tell(made);
        }
        if let Some(address) = service.rtsp_address() {
            outln!("streams: rtsp://{address}/NAME");
        }
        outln!("{}", service.url());
        tell_manager("READY=1");
        loop {
            match signals.next() {
                Signal::End => break,
                Signal::Reload => {
                    tell_manager("RELOADING=1");
                    self.reload(&service);
                    tell_manager("READY=1");
                }
            }
        }
        tell_manager("STOPPING=1");
        errln!("stopping; a second Ctrl-C stops at once");
        service.stop();
        Ok(())
    }

    /// The settings of the file, overridden by flags.
    fn settings(&self) -> Result<Settings> {
        let mut config = match &self.config {
            Some(path) => Config::read(path).map_err(|error| match error {
                ConfigError::Read { .. } => anyhow::Error::from(error),
                other => UsageError(other.to_string()).into(),
            })?,
            None => Config::default(),
        };
        if let Some(listen) = self.listen {
            config.listen = listen.to_string();
        }
        config.gallery = self.gallery.clone().unwrap_or(config.gallery);
        config.data = self.data.clone().unwrap_or(config.data);
        for (name, input) in &self.source {
            config.sources.retain(|source| source.name != *name);
            let repeat = self.repeat && matches!(Input::parse(input), Ok(Input::File(_)));
            config.sources.push(SourceConfig { repeat, ..SourceConfig::new(name, input) });
        }
        config.settings().map_err(|error| UsageError(error.to_string()).into())
    }

    fn options(&self) -> Result<ServiceOptions> {
        let mut made = ServiceOptions::new(options::isa()?);
        made.device = self.device.device;
        made.model.clone_from(&self.model.model);
        made.precision = self.precision.precision;
        made.threads = Some(self.threads.count());
        made.job_program = Some(self.job_program()?);
        Ok(made)
    }

    /// This program, with [`JobArgs`].
    fn job_program(&self) -> Result<JobProgram> {
        let program = std::env::current_exe().context("the path of this program is unknown")?;
        let flags = [
            ("--model", self.model.model.clone()),
            ("--precision", self.precision.precision.to_string()),
            ("--device", self.device.device.to_string()),
            ("--threads", self.threads.count().to_string()),
            ("--log", self.log.name().to_owned()),
        ];
        let flags = flags.into_iter().map(|(flag, value)| format!("{flag}={value}"));
        Ok(JobProgram { program, arguments: std::iter::once("serve-job".to_owned()).chain(flags).collect() })
    }

    /// Applies the current file, or keeps the old settings if it is invalid.
    fn reload(&self, service: &Service) {
        let reloaded = self.settings().and_then(|settings| service.reload(settings).map_err(refused));
        match reloaded {
            Ok(()) => errln!("configuration and galleries reread"),
            Err(error) => errln!("warning: not reloaded, the old settings stay in force: {error:#}"),
        }
    }
}

/// Label one video for `sphereface serve`, which starts this command
///
/// The video is named on standard input, and the progress is told on standard output.
#[derive(Debug, Args)]
pub struct JobArgs {
    /// Format of the log on standard error
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log: LogFormat,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    precision: PrecisionArgs,
    #[command(flatten, next_help_heading = "Running")]
    device: DeviceArgs,
    #[command(flatten, next_help_heading = "Running")]
    threads: ThreadArgs,
}

impl JobArgs {
    /// Runs the job.
    pub fn run(self) -> Result<()> {
        // Ctrl-C, the end of a terminal and a service manager tell every process; the service decides what becomes of its job.
        #[cfg(unix)]
        for signal in [signal_hook::consts::SIGHUP, signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM]
        {
            signal_hook::flag::register(signal, std::sync::Arc::default())?;
        }
        self.log.start();
        let isa = options::isa()?;
        let engine = || {
            let device = Device::open(self.device.device, isa)?;
            let builder = Engine::builder().on(device).model(&self.model.model);
            builder.precision(self.precision.precision).threads(self.threads.count()).build()
        };
        run_job(engine, std::io::stdin(), std::io::stdout()).context("the service is gone")
    }
}

fn refused(error: ServeError) -> anyhow::Error {
    match error {
        ServeError::Config(error) => UsageError(error.to_string()).into(),
        ServeError::Engine(error) => options::refused(error),
        other => other.into(),
    }
}

/// Writes the commented configuration, unless there is a file already.
fn init(path: &Path) -> Result<()> {
    use std::io::Write;
    let made = std::fs::OpenOptions::new().write(true).create_new(true).open(path);
    let mut file = match made {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            bail!("{} already exists: delete it, or choose another name", path.display());
        }
        made => made.with_context(|| format!("{} cannot be written", path.display()))?,
    };
    file.write_all(TEMPLATE.as_bytes()).with_context(|| format!("{} cannot be written", path.display()))?;
    outln!("{}", path.display());
    Ok(())
}

/// Prints new tokens.
fn tell(made: &NewTokens) {
    for (role, token) in made.all() {
        outln!("{} token: {token}", role.name());
    }
    errln!("these tokens are shown once and only their hashes are stored: save them now");
}

/// Notifies the service manager of the service's state, if there is one (systemd's `Type=notify`).
fn tell_manager(state: &str) {
    #[cfg(target_os = "linux")]
    if let Some(path) = std::env::var_os("NOTIFY_SOCKET") {
        use std::os::linux::net::SocketAddrExt;
        use std::os::unix::ffi::OsStrExt;
        use std::os::unix::net::{SocketAddr, UnixDatagram};
        let address = match path.as_bytes().strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name),
            None => SocketAddr::from_pathname(&path),
        };
        let told =
            address.and_then(|address| UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address));
        if let Err(error) = told {
            errln!("warning: the service manager cannot be notified of {state}: {error}");
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = state;
}

/// The meaning of a signal.
#[cfg_attr(not(unix), expect(dead_code, reason = "only Unix has a signal for it"))]
enum Signal {
    End,
    Reload,
}

/// Signals to the process.
struct Signals {
    #[cfg(unix)]
    signals: std::cell::RefCell<signal_hook::iterator::Signals>,
    #[cfg(not(unix))]
    end: std::sync::Arc<std::sync::atomic::AtomicBool>,
}

#[cfg(unix)]
impl Signals {
    fn watch() -> Result<Self> {
        use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
        let ending = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // The second one kills the program if it is still running.
            signal_hook::flag::register_conditional_shutdown(signal, 1, std::sync::Arc::clone(&ending))?;
            signal_hook::flag::register(signal, std::sync::Arc::clone(&ending))?;
        }
        let signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP])?;
        Ok(Self { signals: signals.into() })
    }

    /// Waits for the next signal.
    fn next(&self) -> Signal {
        match self.signals.borrow_mut().forever().next() {
            Some(signal_hook::consts::SIGHUP) => Signal::Reload,
            _ => Signal::End,
        }
    }
}

#[cfg(not(unix))]
impl Signals {
    fn watch() -> Result<Self> {
        let end = std::sync::Arc::default();
        signal_hook::flag::register(signal_hook::consts::SIGINT, std::sync::Arc::clone(&end))?;
        Ok(Self { end })
    }

    /// Waits for the next signal.
    fn next(&self) -> Signal {
        while !self.end.load(std::sync::atomic::Ordering::Acquire) {
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        Signal::End
    }
}

#[cfg(test)]
mod tests {
    use super::source;

    #[test]
    fn a_source_is_a_name_and_an_input() {
        let read = source("door=rtsp://cam/?a=b").unwrap();
        assert_eq!(read, ("door".into(), "rtsp://cam/?a=b".into()));
        for wrong in ["", "door", "door=", "=rtsp://cam"] {
            assert!(source(wrong).unwrap_err().contains("door=rtsp://"), "{wrong}");
        }
    }
}
