use tempfile::TempDir;

use super::*;
use crate::store::contract;

#[tokio::test]
async fn keeps_the_contract() {
    let folder = TempDir::new().expect("a temporary folder");
    let store = Edge::open(folder.path().to_owned(), Config::default()).await.expect("opened");
    contract::verify(&store).await;
    store.close().await;
}
