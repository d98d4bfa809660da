//! The labelled pictures of each source as an RTSP stream, for recorders and players.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use gstreamer as gst;
use gstreamer::glib;
use gstreamer::prelude::*;
use gstreamer_app::AppSrc;
use gstreamer_rtsp_server as rtsp;
use gstreamer_rtsp_server::prelude::*;
use tokio::runtime::Handle;

use super::config::RtspSettings;
use super::site::Site;

/// From pictures to packets. Frames come when they have been analysed.
const PIPELINE: &str = "( appsrc name=pictures is-live=true format=time do-timestamp=true max-buffers=4 \
    leaky-type=downstream caps=image/jpeg ! jpegdec ! videoconvert ! videoscale ! \
    video/x-raw,format=I420,pixel-aspect-ratio=1/1 ! x264enc tune=zerolatency speed-preset=veryfast \
    key-int-max=20 ! video/x-h264,profile=main ! rtph264pay name=pay0 pt=96 config-interval=1 )";
/// Interval at which added and removed sources are checked.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Time limit for the start of the server.
const START_LIMIT: Duration = Duration::from_secs(10);

/// A server, running until it is stopped.
pub(super) struct Rtsp {
    main_loop: glib::MainLoop,
    thread: JoinHandle<()>,
    address: SocketAddr,
}

impl Rtsp {
    /// Starts to serve every source at `rtsp://ADDRESS/NAME`.
    ///
    /// # Errors
    /// Why the server cannot start, in a sentence.
    pub fn start(site: &Arc<Site>, settings: &RtspSettings, runtime: &Handle) -> Result<Self, String> {
        gst::init().map_err(|error| format!("GStreamer does not start: {error}"))?;
        for element in ["appsrc", "jpegdec", "x264enc", "rtph264pay"] {
            if gst::ElementFactory::find(element).is_none() {
                return Err(format!("GStreamer's element {element} is missing: install its plugin"));
            }
        }
        let context = glib::MainContext::new();
        let main_loop = glib::MainLoop::new(Some(&context), false);
        let (tell, started) = mpsc::channel();
        let (site, settings, runtime) = (Arc::clone(site), settings.clone(), runtime.clone());
        let running = main_loop.clone();
        let work = move || {
            let served =
                context.with_thread_default(|| serve(&site, &settings, &runtime, &context, &running, &tell));
            if let Err(error) = served {
                let _ = tell.send(Err(error.to_string()));
            }
        };
        let thread = std::thread::Builder::new().name("rtsp".into()).spawn(work);
        let thread = thread.map_err(|error| format!("its thread cannot be started: {error}"))?;
        match started.recv_timeout(START_LIMIT) {
            Ok(Ok(address)) => Ok(Self { main_loop, thread, address }),
            Ok(Err(reason)) => Err(reason),
            Err(_) => Err("the RTSP server does not start".into()),
        }
    }

    /// The address it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends all streams.
    pub fn stop(self) {
        self.main_loop.quit();
        // A thread that panicked has already reported it.
        let _ = self.thread.join();
    }
}

fn serve(
    site: &Arc<Site>,
    settings: &RtspSettings,
    runtime: &Handle,
    context: &glib::MainContext,
    running: &glib::MainLoop,
    tell: &mpsc::Sender<Result<SocketAddr, String>>,
) {
    let server = rtsp::RTSPServer::new();
    server.set_address(&settings.listen.ip().to_string());
    server.set_service(&settings.listen.port().to_string());
    let role = settings.login.as_ref().map(|(user, password)| {
        let auth = rtsp::RTSPAuth::new();
        let token = rtsp::RTSPToken::builder().field("media.factory.role", "viewer").build();
        auth.add_basic(&rtsp::RTSPAuth::make_basic(user, password), &token);
        server.set_auth(Some(&auth));
        "viewer"
    });
    let (Some(mounts), Ok(_attached)) = (server.mount_points(), server.attach(Some(context))) else {
        let _ = tell.send(Err(format!("{} cannot be listened on", settings.listen)));
        return;
    };
    let port = u16::try_from(server.bound_port()).unwrap_or_default();
    let _ = tell.send(Ok(SocketAddr::new(settings.listen.ip(), port)));
    let (site, runtime) = (Arc::clone(site), runtime.clone());
    let mut mounted = BTreeSet::new();
    let mut look = move || {
        let names: BTreeSet<String> = site.cameras.names().into_iter().collect();
        for gone in mounted.difference(&names) {
            mounts.remove_factory(&format!("/{gone}"));
        }
        for new in names.difference(&mounted) {
            mounts.add_factory(&format!("/{new}"), factory(&site, new, &runtime, role));
        }
        mounted = names;
    };
    look();
    let timer = glib::timeout_source_new(LOOK_EVERY, Some("sources"), glib::Priority::DEFAULT, move || {
        look();
        glib::ControlFlow::Continue
    });
    timer.attach(Some(context));
    running.run();
    timer.destroy();
    server.client_filter(Some(&mut |_, _| rtsp::RTSPFilterResult::Remove));
}

/// The factory of a source's stream, which runs when a client connects.
fn factory(site: &Arc<Site>, name: &str, runtime: &Handle, role: Option<&str>) -> rtsp::RTSPMediaFactory {
    let factory = rtsp::RTSPMediaFactory::new();
    factory.set_launch(PIPELINE);
    // The stream is encoded once for all viewers.
    factory.set_shared(true);
    if let Some(role) = role {
        factory.add_role_from_structure(
            &gst::Structure::builder(role)
                .field("media.factory.access", true)
                .field("media.factory.construct", true)
                .build(),
        );
    }
    let (site, name, runtime) = (Arc::clone(site), name.to_owned(), runtime.clone());
    factory.connect_media_configure(move |_, media| {
        let bin = media.element().downcast::<gst::Bin>().ok();
        let source = bin.and_then(|bin| bin.by_name("pictures")?.downcast::<AppSrc>().ok());
        if let Some(source) = source {
            runtime.spawn(feed(Arc::clone(&site), name.clone(), source));
        }
    });
    factory
}

/// Pushes pictures to a stream for as long as it accepts them.
async fn feed(site: Arc<Site>, name: String, source: AppSrc) {
    let mut ending = site.ending.clone();
    'source: while let Some(mut tiles) = site.cameras.tiles(&name) {
        loop {
            let changed = tokio::select! {
                changed = tiles.changed() => changed.is_ok(),
                _ = ending.wait_for(|ending| *ending) => break 'source,
            };
            if !changed {
                // The source was changed, and continues under its name, or was removed.
                tokio::time::sleep(LOOK_EVERY).await;
                continue 'source;
            }
            let Some(tile) = tiles.borrow_and_update().clone() else { continue };
            if source.push_buffer(gst::Buffer::from_slice(tile.jpeg.clone())).is_err() {
                // There are no more viewers.
                return;
            }
        }
    }
    // Viewers are notified that the stream has ended.
    let _ = source.end_of_stream();
}
