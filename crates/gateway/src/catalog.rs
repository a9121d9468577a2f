//! What the contracts say about the services behind the gateway: their names, and which methods
//! answer once and which stream.

use std::collections::BTreeSet;

use prost::Message as _;
use prost_types::FileDescriptorSet;

/// The services and unary methods of a set of contracts.
#[derive(Clone, Debug)]
pub(crate) struct Catalog {
    services: BTreeSet<String>,
    /// Paths, as in `/package.Service/Method`.
    unary: BTreeSet<String>,
}

// === impl Catalog ===

impl Catalog {
    /// Reads an encoded `google.protobuf.FileDescriptorSet`.
    pub(crate) fn read(descriptors: &[u8]) -> Result<Self, prost::DecodeError> {
        let mut catalog = Self { services: BTreeSet::new(), unary: BTreeSet::new() };
        for file in &FileDescriptorSet::decode(descriptors)?.file {
            for service in &file.service {
                let name = format!("{}.{}", file.package(), service.name());
                for method in &service.method {
                    if !method.client_streaming() && !method.server_streaming() {
                        catalog.unary.insert(format!("/{name}/{}", method.name()));
                    }
                }
                catalog.services.insert(name);
            }
        }
        Ok(catalog)
    }

    /// The services of a package, by their full names.
    pub(crate) fn services_of(&self, package: &str) -> Vec<String> {
        let is_inside = |service: &&String| {
            service.rsplit_once('.').is_some_and(|(parent, _)| parent == package)
        };
        self.services.iter().filter(is_inside).cloned().collect()
    }

    /// Whether the method at `path` takes one message and answers with one. A method that is not
    /// in the contracts may do anything.
    pub(crate) fn is_unary(&self, path: &str) -> bool {
        self.unary.contains(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn catalog() -> Catalog {
        Catalog::read(clipmesh_proto::FILE_DESCRIPTOR_SET).expect("our own contracts")
    }

    #[test]
    fn knows_the_services_of_each_package() {
        let expected = [
            "clipmesh.search.v1.CollectionService",
            "clipmesh.search.v1.ItemService",
            "clipmesh.search.v1.SearchService",
        ];
        assert_eq!(catalog().services_of("clipmesh.search.v1"), expected, "by full name");
        let embedder = catalog().services_of("clipmesh.embedder.v1");
        assert_eq!(embedder, ["clipmesh.embedder.v1.EmbedderService"], "its own package only");
        assert!(catalog().services_of("clipmesh.search").is_empty(), "a part is no package");
    }

    #[test]
    fn tells_streams_from_calls() {
        let catalog = catalog();
        assert!(catalog.is_unary("/clipmesh.search.v1.ItemService/IndexItem"), "one answer");
        assert!(!catalog.is_unary("/clipmesh.search.v1.ItemService/IndexItems"), "a stream");
        assert!(!catalog.is_unary("/clipmesh.search.v1.ItemService/NotYetInvented"), "unknown");
    }
}
