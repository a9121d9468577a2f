//! Opening an object store by its address.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::local::LocalFileSystem;
use object_store::path::Path as Location;
use object_store::prefix::PrefixStore;
use object_store::{BackoffConfig, ClientConfigKey, ObjectStore, RetryConfig};

use super::{Config, Error};

/// Attempts after the first. Soon after each other at first, so that it is the time that ends them.
const MAX_RETRIES: usize = 6;

/// Where an address leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Address<'a> {
    Folder(&'a Path),
    /// With the bucket and what all names in it start with.
    S3(&'a str, &'a str),
    Google(&'a str, &'a str),
    Azure(&'a str, &'a str),
}

/// How long calls may take, and how often they are repeated.
#[derive(Debug)]
struct Bounds {
    /// Of one attempt, in the notation of the library's settings.
    timeout: String,
    retries: RetryConfig,
}

/// What is wrong with an address, to stand behind its name. The address is not repeated: it may be
/// one with a key in it.
pub(super) fn fault(url: &str) -> Option<String> {
    let message = Address::read(url).err()?;
    let is_scheme =
        |scheme: &&str| scheme.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    let scheme = url.split_once("://").map(|(scheme, _)| scheme).filter(is_scheme);
    Some(match scheme {
        Some(scheme) => format!("{message}; it starts with `{scheme}://`"),
        None => message.to_owned(),
    })
}

/// Opens a folder, which is made if it is not there.
pub(super) fn folder(path: &Path, sync_writes: bool) -> Result<Arc<dyn ObjectStore>, Error> {
    std::fs::create_dir_all(path)
        .map_err(|source| Error::Folder { path: path.to_owned(), source })?;
    let store = LocalFileSystem::new_with_prefix(path)?;
    Ok(Arc::new(store.with_automatic_cleanup(true).with_fsync(sync_writes)))
}

/// Opens what an address leads to. Nothing is asked of it yet. The cryptography of the process must
/// have been chosen before.
pub(super) fn url(url: &str, config: &Config) -> Result<Arc<dyn ObjectStore>, Error> {
    let address = Address::read(url).map_err(|message| object_store::Error::Generic {
        store: "URL",
        source: format!("`blobs.url` {message}").into(),
    })?;
    Ok(match address {
        Address::Folder(path) => folder(path, config.sync_writes)?,
        Address::S3(bucket, prefix) => s3(AmazonS3Builder::from_env(), bucket, prefix, config)?,
        Address::Google(bucket, prefix) => {
            let Bounds { timeout, retries } = Bounds::of(config);
            let key = GoogleConfigKey::Client(ClientConfigKey::Timeout);
            let builder = GoogleCloudStorageBuilder::from_env().with_bucket_name(bucket);
            let builder = builder.with_config(key, timeout).with_retry(retries);
            prefixed(builder.build()?, prefix)
        }
        Address::Azure(container, prefix) => {
            let Bounds { timeout, retries } = Bounds::of(config);
            let key = AzureConfigKey::Client(ClientConfigKey::Timeout);
            let builder = MicrosoftAzureBuilder::from_env().with_container_name(container);
            let builder = builder.with_config(key, timeout).with_retry(retries);
            prefixed(builder.build()?, prefix)
        }
    })
}

/// Opens a bucket of S3, or of what speaks its protocol.
pub(super) fn s3(
    builder: AmazonS3Builder,
    bucket: &str,
    prefix: &str,
    config: &Config,
) -> Result<Arc<dyn ObjectStore>, Error> {
    let Bounds { timeout, retries } = Bounds::of(config);
    let key = AmazonS3ConfigKey::Client(ClientConfigKey::Timeout);
    let builder = builder.with_bucket_name(bucket).with_config(key, timeout).with_retry(retries);
    Ok(prefixed(builder.build()?, prefix))
}

fn prefixed(store: impl ObjectStore, prefix: &str) -> Arc<dyn ObjectStore> {
    if prefix.is_empty() {
        return Arc::new(store);
    }
    Arc::new(PrefixStore::new(store, Location::from(prefix)))
}

// === impl Bounds ===

impl Bounds {
    fn of(config: &Config) -> Self {
        let backoff = BackoffConfig {
            init_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(5),
            base: 2.0,
        };
        let max_retries = if config.retry_timeout.is_zero() { 0 } else { MAX_RETRIES };
        let retries = RetryConfig { backoff, max_retries, retry_timeout: config.retry_timeout };
        Self { timeout: format!("{}ms", config.timeout.as_millis()), retries }
    }
}

// === impl Address ===

impl<'a> Address<'a> {
    fn read(url: &'a str) -> Result<Self, &'static str> {
        let form = "must start with `file:///`, `s3://`, `gs://` or `az://`";
        let (scheme, rest) = url.split_once("://").ok_or(form)?;
        if scheme == "file" {
            let path = Path::new(rest);
            return if path.is_absolute() { Ok(Self::Folder(path)) } else { Err(form) };
        }
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let prefix = prefix.trim_matches('/');
        let address = match scheme {
            "s3" => Self::S3(bucket, prefix),
            "gs" => Self::Google(bucket, prefix),
            "az" => Self::Azure(bucket, prefix),
            _ => return Err(form),
        };
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        if bucket.is_empty() || !bucket.chars().all(is_name) {
            return Err("must name a bucket after `://`");
        }
        Ok(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_says_where_and_what_names_start_with() {
        let cases = [
            ("file:///var/blobs", Address::Folder(Path::new("/var/blobs"))),
            ("s3://pictures", Address::S3("pictures", "")),
            ("s3://pictures/clipmesh/a/", Address::S3("pictures", "clipmesh/a")),
            ("gs://pictures.example.com/x", Address::Google("pictures.example.com", "x")),
            ("az://pictures/x", Address::Azure("pictures", "x")),
        ];
        for (url, address) in cases {
            assert_eq!(Address::read(url), Ok(address), "{url}");
            assert_eq!(fault(url), None, "{url}");
        }
        let bad = [
            "",
            "/var/SECRET",
            "file://SECRET",
            "http://SECRET",
            "s3://",
            "s3:///SECRET",
            "s3://KEY:SECRET@pictures/x",
            "SECRET://pictures",
        ];
        for url in bad {
            let fault = fault(url).expect("refused");
            assert!(!fault.contains("SECRET"), "a key may be in it: {fault}");
        }
        let fault = fault("s3://KEY:SECRET@pictures/x").expect("refused");
        assert!(fault.contains("`s3://`"), "which it was: {fault}");
    }

    #[test]
    fn time_outs_are_told_as_the_library_reads_them() {
        rustls::crypto::ring::default_provider().install_default().ok();
        let config = Config { timeout: Duration::from_millis(1_500), ..Config::default() };
        let builder = AmazonS3Builder::new().with_region("here");
        let store = s3(builder, "pictures", "", &config);
        assert!(store.is_ok(), "read: {store:?}");
    }
}
