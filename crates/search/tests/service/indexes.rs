use clipmesh_proto::code::Reason;
use clipmesh_proto::search::v1;
use prost_types::FieldMask;
use tonic::{Code, Status};

use crate::sandbox::{COLLECTION, Clients, RED, Sandbox, assert_refused, item, ready};

fn index(key: &str, kind: v1::FieldIndexKind) -> v1::FieldIndex {
    v1::FieldIndex { key: key.to_owned(), kind: kind.into(), is_built_in: false }
}

async fn described(clients: &mut Clients, name: &str) -> Result<v1::Collection, Status> {
    let request = v1::GetCollectionRequest { name: name.to_owned() };
    let response = clients.collections.get_collection(request).await?.into_inner();
    Ok(response.collection.expect("described"))
}

fn chosen(collection: &v1::Collection) -> Vec<(&str, v1::FieldIndexKind)> {
    let own = collection.field_indexes.iter().filter(|index| !index.is_built_in);
    own.map(|index| (index.key.as_str(), index.kind())).collect()
}

async fn create_index(
    clients: &mut Clients,
    index: Option<v1::FieldIndex>,
) -> Result<v1::FieldIndex, Status> {
    let collection = COLLECTION.to_owned();
    let request = v1::CreateFieldIndexRequest { collection, field_index: index };
    let response = clients.collections.create_field_index(request).await?.into_inner();
    Ok(response.field_index.expect("described"))
}

async fn set_alias(clients: &mut Clients, alias: &str, to: &str) -> Result<String, Status> {
    let request = v1::SetAliasRequest { alias: alias.to_owned(), collection: to.to_owned() };
    let response = clients.collections.set_alias(request).await?.into_inner();
    Ok(response.previous_collection)
}

#[tokio::test]
async fn a_collection_is_made_as_it_is_asked_for() {
    let (_sandbox, mut clients) = Sandbox::start().await;
    let graph = v1::VectorIndex {
        links: Some(24),
        build_effort: None,
        quantization: v1::Quantization::Scalar.into(),
    };
    let request = v1::CreateCollectionRequest {
        name: "full".to_owned(),
        field_indexes: vec![
            index("metadata.tag", v1::FieldIndexKind::Unspecified),
            index("metadata.place", v1::FieldIndexKind::Geo),
            index("width", v1::FieldIndexKind::Integer),
        ],
        vector_index: Some(graph),
        word_fields: vec!["metadata.caption".to_owned()],
        ..Default::default()
    };
    let made = clients.collections.create_collection(request).await.expect("made").into_inner();
    let made = made.collection.expect("described");
    let own = [
        ("metadata.place", v1::FieldIndexKind::Geo),
        ("metadata.tag", v1::FieldIndexKind::Keyword),
    ];
    assert_eq!(chosen(&made), own, "in order of their keys");
    let built_in: Vec<_> = made.field_indexes.iter().filter(|index| index.is_built_in).collect();
    assert_eq!(built_in.len(), 10, "those that all have: {built_in:?}");
    assert!(built_in.iter().all(|index| index.key != "lot"), "but for our own affairs");
    let graph = made.vector_index.expect("described");
    assert_eq!((graph.links, graph.build_effort), (Some(24), Some(100)), "as asked for, or not");
    assert_eq!(graph.quantization(), v1::Quantization::Scalar, "as asked for");
    assert_eq!(made.word_fields, ["metadata.caption"], "as asked for");
    assert_eq!(described(&mut clients, "full").await.expect("there"), made, "and so it stays");
}

#[tokio::test]
async fn indexes_come_and_go_online() {
    let (_sandbox, mut clients) = Sandbox::with_colours().await;
    let keyword = index("metadata.tag", v1::FieldIndexKind::Unspecified);
    let made = create_index(&mut clients, Some(keyword.clone())).await.expect("made");
    assert_eq!(made, index("metadata.tag", v1::FieldIndexKind::Keyword), "its kind is settled");
    create_index(&mut clients, Some(keyword)).await.expect("there already");
    let other = index("metadata.tag", v1::FieldIndexKind::Integer);
    create_index(&mut clients, Some(other)).await.expect("another kind");
    let collection = described(&mut clients, COLLECTION).await.expect("there");
    assert_eq!(chosen(&collection), [("metadata.tag", v1::FieldIndexKind::Integer)], "replaced");
    let built_in = index("create_time", v1::FieldIndexKind::Unspecified);
    let built_in = create_index(&mut clients, Some(built_in)).await.expect("there already");
    assert!(built_in.is_built_in, "every collection has it: {built_in:?}");

    let delete = |key: &str| v1::DeleteFieldIndexRequest {
        collection: COLLECTION.to_owned(),
        key: key.to_owned(),
    };
    clients.collections.delete_field_index(delete("metadata.tag")).await.expect("removed");
    let again = clients.collections.delete_field_index(delete("metadata.tag")).await;
    assert_eq!(again.expect_err("gone").code(), Code::NotFound, "only once");
    let built_in = clients.collections.delete_field_index(delete("width")).await;
    assert_refused(built_in, "key", Reason::Malformed);
    let none = clients.collections.delete_field_index(delete("nothing")).await;
    assert_refused(none, "key", Reason::Malformed);
    let bad = index("width", v1::FieldIndexKind::Geo);
    assert_refused(
        create_index(&mut clients, Some(bad)).await,
        "field_index.kind",
        Reason::Malformed,
    );
    assert_refused(create_index(&mut clients, None).await, "field_index", Reason::Missing);
}

#[tokio::test]
async fn how_it_is_searched_can_be_changed() {
    let (_sandbox, mut clients) = Sandbox::with_colours().await;
    let update = |name: &str, links, paths: &[&str]| {
        let vector_index = Some(v1::VectorIndex { links, ..Default::default() });
        let collection =
            v1::Collection { name: name.to_owned(), vector_index, ..Default::default() };
        let paths = paths.iter().map(|path| (*path).to_owned()).collect();
        let update_mask = Some(FieldMask { paths });
        v1::UpdateCollectionRequest { collection: Some(collection), update_mask }
    };
    let changed = clients.collections.update_collection(update(COLLECTION, Some(48), &[])).await;
    let changed = changed.expect("changed").into_inner().collection.expect("described");
    let graph = changed.vector_index.expect("described");
    assert_eq!((graph.links, graph.build_effort), (Some(48), Some(100)), "what is set");
    assert_eq!(changed.item_count, 4, "with all its items");
    let whole = clients.collections.update_collection(update(COLLECTION, None, &["vector_index"]));
    let whole = whole.await.expect("changed").into_inner().collection.expect("described");
    assert_eq!(whole.vector_index.expect("described").links, Some(16), "back to the default");

    let bad = clients.collections.update_collection(update(COLLECTION, Some(2), &[])).await;
    assert_refused(bad, "collection.vector_index.links", Reason::OutOfRange);
    let fixed =
        clients.collections.update_collection(update(COLLECTION, None, &["distance"])).await;
    assert_refused(fixed, "update_mask.paths[0]", Reason::Malformed);
    set_alias(&mut clients, "other", COLLECTION).await.expect("set");
    let by_alias = clients.collections.update_collection(update("other", Some(8), &[])).await;
    assert_eq!(by_alias.expect_err("refused").code(), Code::NotFound, "by its own name only");
    let nothing = v1::UpdateCollectionRequest::default();
    let nothing = clients.collections.update_collection(nothing).await;
    assert_refused(nothing, "collection", Reason::Missing);
}

#[tokio::test]
async fn an_alias_stands_for_a_collection() {
    let (_sandbox, mut clients) = Sandbox::with_colours().await;
    clients.create("new").await;
    assert_eq!(set_alias(&mut clients, "live", COLLECTION).await.expect("set"), "", "it is new");
    let count = async |clients: &mut Clients| {
        let request = v1::CountItemsRequest { collection: "live".to_owned(), filter: None };
        clients.items.count_items(request).await.expect("counted").into_inner().count
    };
    assert_eq!(count(&mut clients).await, 4, "those of the collection");
    let request =
        v1::IndexItemRequest { collection: "live".to_owned(), item: Some(item("x", RED)) };
    clients.items.index_item(request).await.expect("stored");
    assert!(clients.get("x").await.is_ok(), "in the collection itself");
    let collection = described(&mut clients, "live").await.expect("there");
    assert_eq!(
        (collection.name.as_str(), collection.aliases.as_slice()),
        (COLLECTION, &["live".to_owned()][..])
    );

    assert_eq!(set_alias(&mut clients, "live", "new").await.expect("set"), COLLECTION, "moved");
    assert_eq!(count(&mut clients).await, 0, "those of the other collection");
    set_alias(&mut clients, "a", COLLECTION).await.expect("set");
    let all = clients.collections.list_aliases(v1::ListAliasesRequest {}).await.expect("listed");
    let all = all.into_inner().aliases.into_iter().map(|one| (one.alias, one.collection));
    let expected = [("a", COLLECTION), ("live", "new")];
    let expected = expected.map(|(alias, name)| (alias.to_owned(), name.to_owned()));
    assert_eq!(all.collect::<Vec<_>>(), expected, "in order");

    let taken = set_alias(&mut clients, COLLECTION, "new").await.expect_err("refused");
    assert_eq!(taken.code(), Code::AlreadyExists, "a collection has that name: {taken:?}");
    let chained = set_alias(&mut clients, "chain", "live").await.expect_err("refused");
    assert_eq!(chained.code(), Code::NotFound, "only for a collection: {chained:?}");
    assert_refused(set_alias(&mut clients, "No", "new").await, "alias", Reason::Malformed);
    let create = v1::CreateCollectionRequest { name: "live".to_owned(), ..Default::default() };
    let taken = clients.collections.create_collection(create).await.expect_err("refused");
    assert_eq!(taken.code(), Code::AlreadyExists, "an alias has that name: {taken:?}");

    let delete = || v1::DeleteAliasRequest { alias: "live".to_owned() };
    clients.collections.delete_alias(delete()).await.expect("removed");
    let again = clients.collections.delete_alias(delete()).await.expect_err("gone");
    assert_eq!(again.code(), Code::NotFound, "only once: {again:?}");
    let remove = v1::DeleteCollectionRequest { name: COLLECTION.to_owned() };
    clients.collections.delete_collection(remove).await.expect("removed");
    let gone = described(&mut clients, "a").await.expect_err("gone");
    assert_eq!(gone.code(), Code::NotFound, "with the collection: {gone:?}");
}

#[tokio::test]
async fn tells_how_large_a_collection_is() {
    let (_sandbox, mut clients) = Sandbox::start().await;
    let stats = async |clients: &mut Clients| {
        let request = v1::GetCollectionStatsRequest { name: COLLECTION.to_owned() };
        let response = clients.collections.get_collection_stats(request).await;
        response.expect("an answer").into_inner()
    };
    let empty = stats(&mut clients).await;
    assert_eq!((empty.item_count, empty.vector_bytes), (0, 0), "nothing is there");
    for id in ["a", "b", "c"] {
        clients.index(ready(id, &[1.0; 4])).await.expect("stored");
    }
    let full = stats(&mut clients).await;
    assert_eq!(full.item_count, 3, "as many as were stored");
    assert_eq!(full.vector_bytes, 3 * 4 * 4, "items × dimension × 4");
    assert_ne!(full.index_state(), v1::IndexState::Unspecified, "it is told");
    assert!(full.generation > empty.generation, "it rises with every change");
    assert!(full.result_cache.is_some() && full.embedding_cache.is_some(), "the caches are told");

    let clear = v1::ClearCacheRequest { name: COLLECTION.to_owned() };
    clients.collections.clear_cache(clear).await.expect("cleared");
    let absent = v1::GetCollectionStatsRequest { name: "absent".to_owned() };
    let absent = clients.collections.get_collection_stats(absent).await.expect_err("refused");
    assert_eq!(absent.code(), Code::NotFound, "{absent:?}");
    let absent = v1::ClearCacheRequest { name: "absent".to_owned() };
    let absent = clients.collections.clear_cache(absent).await.expect_err("refused");
    assert_eq!(absent.code(), Code::NotFound, "{absent:?}");
}
