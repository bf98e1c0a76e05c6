//! Reads one file of the folder for the control path.

use std::path::PathBuf;

use super::stamp;
use crate::guest::engine::load_failure::LoadFailure;
use crate::guest::load::loader::{Contents, FILE_BYTES_MAX};
use crate::source::{Blob, BlobError, ContentVersion};

/// A file, by its path. Its contents may change at any time.
pub struct FileBlob(pub PathBuf);

impl Blob for FileBlob {
    fn read(&self, bytes_max: u64) -> Result<Option<(ContentVersion, Contents)>, BlobError> {
        let FileBlob(path) = self;
        let version = stamp::read(path).map_err(|error| BlobError {
            version: None,
            failure: LoadFailure::of_access(&error),
        })?;
        if version.bytes().min(FILE_BYTES_MAX) > bytes_max {
            return Ok(None);
        }
        let contents = Contents::read(path)
            .map_err(|failure| BlobError { version: Some(version), failure })?;
        let is_whole = stamp::read(path).is_ok_and(|now| now == version);
        Ok(is_whole.then_some((version, contents)))
    }
}
