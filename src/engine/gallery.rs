//! The people to name, embedded with one model.

use std::path::Path;
use std::sync::Arc;

use super::Engine;
use super::error::EngineError;
use crate::embed::{Embedder, Embedding, Mirror};
use crate::gallery::{GalleryFolder, Templates, Viewpoint};
use crate::identify::{
    DEFAULT_MARGIN_DEG, Identification, Identifier, IdentifyError, Threshold, ThresholdRequest,
    ThresholdSource, ViewCalibration,
};
use crate::models::ModelId;

/// Options of a gallery.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct GalleryOptions {
    /// The threshold: an angle, or an error rate that is converted into one.
    pub threshold: ThresholdRequest,
    /// Margin in degrees by which the best match must beat the runner-up.
    pub margin_deg: f64,
}

impl Default for GalleryOptions {
    fn default() -> Self {
        Self { threshold: ThresholdRequest::Default, margin_deg: DEFAULT_MARGIN_DEG }
    }
}

impl GalleryOptions {
    /// Sets the threshold.
    pub fn threshold(mut self, threshold: ThresholdRequest) -> Self {
        self.threshold = threshold;
        self
    }

    /// Sets the margin in degrees.
    pub fn margin_deg(mut self, margin_deg: f64) -> Self {
        self.margin_deg = margin_deg;
        self
    }
}

/// The people to name: a snapshot, packed for search.
///
/// Cloning is cheap, and clones share the snapshot. People enrolled later are in the next snapshot, which can
/// replace this one in a running stream ([`Stream::set_gallery`](super::Stream::set_gallery)).
#[derive(Debug, Clone)]
pub struct Gallery(Arc<Snapshot>);

#[derive(Debug)]
struct Snapshot {
    identifier: Identifier,
    colour_numbers: Vec<(String, u32)>,
    open_templates: usize,
    not_saved: Option<String>,
}

impl Gallery {
    /// Opens the gallery in a folder with default options. New stills are embedded.
    ///
    /// # Errors
    /// When there is no such folder, nobody is in it, or the model has no calibration.
    pub fn open(engine: &Engine, folder: impl AsRef<Path>) -> Result<Self, EngineError> {
        Self::open_with(engine, folder, &GalleryOptions::default())
    }

    /// Opens the gallery in a folder with `options`.
    ///
    /// # Errors
    /// As for [`open`](Self::open), and when the threshold is invalid for the model.
    pub fn open_with(
        engine: &Engine,
        folder: impl AsRef<Path>,
        options: &GalleryOptions,
    ) -> Result<Self, EngineError> {
        let exact = engine.gallery_embedder()?;
        let embedder = exact.as_ref().unwrap_or(engine.embedder());
        let known = Known::load(options.threshold, folder.as_ref(), embedder)?;
        Ok(known.gallery(options.margin_deg, engine.threads())?)
    }

    /// A gallery of given templates with a threshold. `views` adapts the threshold to the views of faces, if
    /// it comes from the model's calibration.
    ///
    /// # Errors
    /// When the templates are of different models.
    pub fn of_templates(
        templates: &Templates,
        threshold: Threshold,
        views: Option<ViewCalibration>,
    ) -> Result<Self, IdentifyError> {
        let identifier = Identifier::new(templates, threshold)?.with_views(views);
        let open = identifier.templates_len();
        Ok(Self::new(identifier, templates, open))
    }

    fn new(identifier: Identifier, templates: &Templates, open_templates: usize) -> Self {
        let numbers =
            templates.people.iter().filter_map(|person| Some((person.name.clone(), person.colour?)));
        Self(Arc::new(Snapshot {
            open_templates,
            colour_numbers: numbers.collect(),
            not_saved: templates.not_saved.as_ref().map(ToString::to_string),
            identifier,
        }))
    }

    /// The model of its embeddings.
    pub fn model(&self) -> ModelId {
        self.0.identifier.model()
    }

    /// Display names, in the order of the gallery.
    pub fn people(&self) -> impl ExactSizeIterator<Item = &str> {
        self.0.identifier.people()
    }

    /// Number of templates.
    pub fn templates_len(&self) -> usize {
        self.0.identifier.templates_len()
    }

    /// Number of templates that can match. The others show a face from a view that carries no information.
    pub fn open_templates(&self) -> usize {
        self.0.open_templates
    }

    /// The threshold angle and its source.
    pub fn threshold(&self) -> &Threshold {
        self.0.identifier.threshold()
    }

    /// The people with their own colour, and its number.
    pub fn colour_numbers(&self) -> &[(String, u32)] {
        &self.0.colour_numbers
    }

    /// Why the embeddings of this snapshot could not be stored for the next one, if so.
    pub fn not_saved(&self) -> Option<&str> {
        self.0.not_saved.as_deref()
    }

    /// Identifies a face seen as `view`.
    ///
    /// # Errors
    /// When the embedding is of another model.
    pub fn identify(&self, probe: &Embedding, view: Viewpoint) -> Result<Identification, IdentifyError> {
        self.0.identifier.identify(probe, view)
    }

    /// The identifier that searches it.
    pub fn identifier(&self) -> &Identifier {
        &self.0.identifier
    }
}

/// The templates of a folder and the threshold for them.
pub struct Known {
    /// The templates.
    pub templates: Templates,
    /// The angle below which a face is named.
    pub threshold: Threshold,
    /// Number of templates that can match.
    pub open_templates: usize,
    /// The handicaps by view.
    pub views: Option<ViewCalibration>,
}

impl Known {
    /// The templates of a folder and the threshold for their number: as requested, else as calibrated on the
    /// user's strangers, else as calibrated with the model.
    ///
    /// # Errors
    /// When there is no such folder or its calibration is damaged; when the request is invalid for the model,
    /// which is checked before anything is embedded; as for [`templates`].
    pub fn load(request: ThresholdRequest, folder: &Path, embedder: &Embedder) -> Result<Self, EngineError> {
        let calibration = GalleryFolder::open(folder)?.threshold_calibration(embedder.model())?;
        let before =
            |count: usize| Threshold::for_gallery(request, embedder.metadata(), calibration.as_ref(), count);
        before(0)?;
        Ok(Self::new(templates(folder, embedder)?, embedder, before)?)
    }

    /// The same for templates in memory. `threshold` is asked for the threshold for a number of templates that can match.
    ///
    /// # Errors
    /// Those of `threshold`.
    pub fn new<E>(
        templates: Templates,
        embedder: &Embedder,
        threshold: impl FnOnce(usize) -> Result<Threshold, E>,
    ) -> Result<Self, E> {
        let views = ViewCalibration::from_metadata(embedder.metadata());
        let all = templates.people.iter().flat_map(|person| &person.templates);
        let open = all.filter(|one| views.as_ref().is_none_or(|views| views.is_open(one.view))).count();
        let threshold = threshold(open)?;
        // An angle that was given, or measured on the user's own strangers, is used unchanged.
        let calibrated = matches!(threshold.source(), ThresholdSource::Calibrated { .. });
        Ok(Self { templates, threshold, open_templates: open, views: views.filter(|_| calibrated) })
    }

    /// Packs the folder for search on `threads` threads.
    ///
    /// # Errors
    /// When its templates are of different models.
    pub fn gallery(self, margin_deg: f64, threads: usize) -> Result<Gallery, IdentifyError> {
        let Self { templates, threshold, open_templates, views } = self;
        let identifier = Identifier::new(&templates, threshold)?.with_views(views);
        let identifier = identifier.with_margin_deg(margin_deg).with_threads(threads);
        Ok(Gallery::new(identifier, &templates, open_templates))
    }
}

/// The templates of a folder with that model; embeds new stills.
///
/// # Errors
/// When there is no such folder, nobody is in it, or it cannot be embedded.
pub fn templates(folder: &Path, embedder: &Embedder) -> Result<Templates, EngineError> {
    let mut scratch = embedder.scratch();
    let templates = GalleryFolder::open(folder)?
        .templates(embedder.model(), |crops| embedder.embed(crops, Mirror::Average, &mut scratch))?;
    match templates.people.iter().all(|person| person.templates.is_empty()) {
        true => Err(EngineError::NobodyEnrolled(folder.to_owned())),
        false => Ok(templates),
    }
}
