//! Why a job failed.

use super::graph::GraphError;
use crate::analysis::AnalysisError;
use crate::annotate::AnnotateError;
use crate::engine::RecogniseError;
use crate::media::MediaError;
use crate::report::ReportError;
use crate::xmp::XmpError;

/// Why a job failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LabelError {
    /// The input cannot be read, or the output cannot be written.
    #[error(transparent)]
    Media(#[from] MediaError),
    /// A face cannot be recognised.
    #[error(transparent)]
    Recognise(#[from] RecogniseError),
    /// Drawing failed.
    #[error(transparent)]
    Annotate(#[from] AnnotateError),
    /// The analysis cannot be written.
    #[error(transparent)]
    Analysis(#[from] AnalysisError),
    /// The list of faces cannot be written.
    #[error(transparent)]
    Report(#[from] ReportError),
    /// A sidecar cannot be read or written.
    #[error(transparent)]
    Xmp(#[from] XmpError),
    /// The stage graph failed, not a stage of it.
    #[error(transparent)]
    Graph(Box<GraphError<LabelError>>),
    /// A subscriber ended the job.
    #[error(transparent)]
    Subscriber(Box<dyn std::error::Error + Send + Sync>),
    /// The request is contradictory.
    #[error(transparent)]
    Request(#[from] super::job::RequestError),
    /// The program was built without video.
    #[error("{0} is a video, but this program was built for stills only: build it with the feature `video`")]
    NoVideo(String),
}

impl From<GraphError<LabelError>> for LabelError {
    fn from(error: GraphError<LabelError>) -> Self {
        match error {
            GraphError::Stage { source, .. } => source,
            other => Self::Graph(Box::new(other)),
        }
    }
}
