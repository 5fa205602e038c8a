//! The folder of manifests, read and followed.

use std::path::Path;

use super::mesh::Mesh;
use crate::Error;

#[derive(Debug)]
pub(crate) struct Source {}

impl Source {
    pub(crate) fn open(_folder: &Path) -> Result<Self, Error> {
        Ok(Self {})
    }
    pub(crate) fn read(&mut self) -> (Mesh, Vec<String>) {
        (Mesh::default(), Vec::new())
    }
    pub(crate) async fn changed(&mut self) -> (Mesh, Vec<String>) {
        std::future::pending().await
    }
    pub(crate) fn trust_domain(&self) -> String {
        "cluster.local".to_owned()
    }
}

pub(crate) fn problems(_folder: &Path) -> Result<Vec<String>, Error> {
    Ok(Vec::new())
}
