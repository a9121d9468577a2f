//! What the contracts say about services: their names, which methods they have, and which of
//! those answer once and which stream.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use prost::{DecodeError, Message as _};
use prost_types::FileDescriptorSet;

use crate::FILE_DESCRIPTOR_SET;

/// The services and methods of a set of contracts.
#[derive(Clone, Debug)]
pub struct Catalog {
    services: BTreeSet<String>,
    /// Whether each method is unary, by its path, as in `/package.Service/Method`.
    methods: BTreeMap<String, bool>,
}

// === impl Catalog ===

impl Catalog {
    /// Our own contracts.
    pub fn contracts() -> &'static Self {
        static CONTRACTS: LazyLock<Catalog> = LazyLock::new(|| {
            Catalog::read(FILE_DESCRIPTOR_SET).expect("the build script encoded the descriptors")
        });
        &CONTRACTS
    }

    /// Reads an encoded `google.protobuf.FileDescriptorSet`.
    fn read(descriptors: &[u8]) -> Result<Self, DecodeError> {
        let mut catalog = Self { services: BTreeSet::new(), methods: BTreeMap::new() };
        for file in &FileDescriptorSet::decode(descriptors)?.file {
            for service in &file.service {
                let name = format!("{}.{}", file.package(), service.name());
                for method in &service.method {
                    let is_unary = !method.client_streaming() && !method.server_streaming();
                    catalog.methods.insert(format!("/{name}/{}", method.name()), is_unary);
                }
                catalog.services.insert(name);
            }
        }
        Ok(catalog)
    }

    /// The services of a package, by their full names.
    pub fn services_of(&self, package: &str) -> Vec<String> {
        let is_inside = |service: &&String| {
            service.rsplit_once('.').is_some_and(|(parent, _)| parent == package)
        };
        self.services.iter().filter(is_inside).cloned().collect()
    }

    /// Whether there is a method at `path`.
    pub fn has(&self, path: &str) -> bool {
        self.methods.contains_key(path)
    }

    /// Whether the method at `path` takes one message and answers with one. A method that is not
    /// in the contracts may do anything.
    pub fn is_unary(&self, path: &str) -> bool {
        self.methods.get(path) == Some(&true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_the_services_of_each_package() {
        let catalog = Catalog::contracts();
        let expected = [
            "clipmesh.search.v1.CollectionService",
            "clipmesh.search.v1.ItemService",
            "clipmesh.search.v1.SearchService",
        ];
        assert_eq!(catalog.services_of("clipmesh.search.v1"), expected, "by full name");
        let embedder = catalog.services_of("clipmesh.embedder.v1");
        assert_eq!(embedder, ["clipmesh.embedder.v1.EmbedderService"], "its own package only");
        assert!(catalog.services_of("clipmesh.search").is_empty(), "a part is no package");
    }

    #[test]
    fn knows_the_methods_by_their_paths() {
        let catalog = Catalog::contracts();
        assert!(catalog.has("/clipmesh.search.v1.ItemService/IndexItem"), "a call");
        assert!(catalog.has("/clipmesh.search.v1.ItemService/IndexItems"), "a stream");
        for stranger in ["", "/", "clipmesh.search.v1.ItemService/IndexItem", "/a.Service/Method"] {
            assert!(!catalog.has(stranger), "`{stranger}` is no path of ours");
        }
    }

    #[test]
    fn tells_streams_from_calls() {
        let catalog = Catalog::contracts();
        assert!(catalog.is_unary("/clipmesh.search.v1.ItemService/IndexItem"), "one answer");
        assert!(!catalog.is_unary("/clipmesh.search.v1.ItemService/IndexItems"), "a stream");
        assert!(!catalog.is_unary("/clipmesh.search.v1.ItemService/NotYetInvented"), "unknown");
    }
}
