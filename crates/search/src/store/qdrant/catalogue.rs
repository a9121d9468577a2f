//! Collections on the server: made whole or not at all, and known by their record.

use std::collections::BTreeMap;
use std::time::Duration;

use clipmesh_proto::ids::CollectionName;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use qdrant_client::qdrant::alias_operations::Action;
use qdrant_client::qdrant::{
    AliasOperations, ChangeAliases, CollectionInfo, CollectionStatus, Condition, CountPoints,
    CreateAlias, CreateFieldIndexCollection, DeleteAlias, DeleteCollection,
    DeleteFieldIndexCollection, Filter, GetCollectionInfoRequest, HealthCheckRequest,
    ListAliasesRequest, ListCollectionsRequest, PayloadIndexParams, UpdateCollection,
};
use tonic::{Code, Status as RpcStatus};

use super::convert::WORDS_VECTOR;
use super::error::{failed, failed_on};
use super::points::completed;
use super::record::Record;
use super::{Inner, layout};
use crate::filter::Field;
use crate::store::index::{FieldIndex, Indexes};
use crate::store::lower::{self, Schema};
use crate::store::{Collection, Error, IndexState, NewCollection, Status, VectorIndexChange};

/// The first version that can replace only a point that is there, and insert only one that is not.
const MIN_VERSION: (u32, u32) = (1, 17);

/// Collections that are asked about at once.
const PARALLEL_CALLS: usize = 8;

/// How far the clocks of those that make collections may differ.
const CLOCK_SKEW: Duration = Duration::from_secs(300);

impl Inner {
    /// Makes a collection. Whoever fails on the way takes away what it began; what a process left
    /// behind that died on the way is taken away by the next that makes one of that name.
    pub(super) async fn create(&self, new: NewCollection) -> Result<Collection, Error> {
        let record = Record::new(&new);
        let limit = self.config.build_timeout;
        let making = tokio::time::timeout(limit, self.make(&new, record.clone()));
        let made = making.await.unwrap_or(Err(Error::TimedOut));
        if made.is_err() {
            self.discard(&new.name, &record).await;
        }
        made
    }

    async fn make(&self, new: &NewCollection, record: Record) -> Result<Collection, Error> {
        let name = &new.name;
        self.check_version().await?;
        let request = layout::create(self.outer_name(name), new, &record, &self.config)?;
        let mut client = self.builders.0.clone();
        if let Err(status) = client.create(request.clone()).await {
            self.make_room(name, &status).await?;
            // Another one was faster.
            let taken = |status| exists_or(name, &status, failed);
            client.create(request).await.map_err(taken)?;
        }
        for index in new.indexes.all() {
            self.make_index(name, &index).await?;
        }
        let request = UpdateCollection {
            collection_name: self.outer_name(name),
            metadata: record.ready().write()?,
            ..UpdateCollection::default()
        };
        client.update(request).await.map_err(|status| failed_on(name, &status))?;
        self.ask(name).await
    }

    /// Refuses a server that would not do what it is asked, and not even say so.
    async fn check_version(&self) -> Result<(), Error> {
        let answer = self.server.clone().health_check(HealthCheckRequest {}).await;
        let version = answer.map_err(|status| failed(&status))?.into_inner().version;
        let mut numbers = version.split('.').map(|part| part.parse().unwrap_or_default());
        let own = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
        if own >= MIN_VERSION {
            return Ok(());
        }
        let (major, minor) = MIN_VERSION;
        Err(Error::Failed(format!("the server is Qdrant {version}; {major}.{minor} is needed")))
    }

    /// Finds out what refused to let a collection be made, and clears it away if nobody misses it.
    async fn make_room(&self, name: &CollectionName, status: &RpcStatus) -> Result<(), Error> {
        // That there is an alias is called an invalid argument.
        if !matches!(status.code(), Code::AlreadyExists | Code::InvalidArgument) {
            return Err(failed(status));
        }
        let Some(info) = self.info(name).await? else {
            return Err(failed(status));
        };
        let longest = self.config.build_timeout + CLOCK_SKEW;
        match Record::read(&info)? {
            Some(record) if record.name() == name.as_str() && record.is_abandoned(longest) => {
                tracing::warn!(collection = %name, "a collection was left half made");
                self.delete_collection(name).await.map(drop)
            }
            Some(_) | None => Err(Error::CollectionExists(name.clone())),
        }
    }

    /// Takes away what was begun, if it was.
    async fn discard(&self, name: &CollectionName, begun: &Record) {
        let discarded = async {
            let info = self.info(name).await?;
            let record = info.as_ref().map(Record::read).transpose()?.flatten();
            if record.as_ref() == Some(begun) {
                self.delete_collection(name).await?;
            }
            Ok::<_, Error>(())
        };
        if let Err(error) = discarded.await {
            tracing::warn!(collection = %name, %error, "a collection may be left half made");
        }
    }

    pub(super) async fn remove(&self, name: CollectionName) -> Result<Collection, Error> {
        let collection = self.ask(&name).await?;
        // An alias is not the collection; and another process may have been faster.
        if collection.name != name || !self.delete_collection(&name).await? {
            return Err(Error::NoCollection(name));
        }
        Ok(collection)
    }

    async fn delete_collection(&self, name: &CollectionName) -> Result<bool, Error> {
        let request = DeleteCollection { collection_name: self.outer_name(name), timeout: None };
        let answer = self.collections.clone().delete(request).await;
        answer.map(|answer| answer.into_inner().result).map_err(|status| failed_on(name, &status))
    }

    /// What the server says of a collection or an alias.
    async fn info(&self, name: &CollectionName) -> Result<Option<CollectionInfo>, Error> {
        let request = GetCollectionInfoRequest { collection_name: self.outer_name(name) };
        match self.collections.clone().get(request).await {
            Ok(answer) => Ok(answer.into_inner().result),
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(failed(&status)),
        }
    }

    /// Describes a collection as it is now.
    pub(super) async fn ask(&self, name: &CollectionName) -> Result<Collection, Error> {
        let (info, record) = self.look_up(name).await?;
        record.collection(&info)
    }

    async fn look_up(&self, name: &CollectionName) -> Result<(CollectionInfo, Record), Error> {
        let unknown = || Error::NoCollection(name.clone());
        let info = self.info(name).await?.ok_or_else(unknown)?;
        let record = Record::read(&info)?.filter(Record::is_ready).ok_or_else(unknown)?;
        if record.name() != name.as_str() {
            // An alias, or somebody's copy of ours: its record still has the name of the original,
            // which it must not be taken for.
            let aliases = self.aliases().await?;
            let target = aliases.get(name).filter(|target| target.as_str() == record.name());
            target.ok_or_else(unknown)?;
        }
        Ok((info, record))
    }

    pub(super) async fn list(&self) -> Result<Vec<Collection>, Error> {
        let answer = self.collections.clone().list(ListCollectionsRequest {}).await;
        let all = answer.map_err(|status| failed(&status))?.into_inner().collections;
        let own = all.iter().filter_map(|collection| self.own_name(&collection.name));
        let own: Vec<_> = own.collect();
        let mut collections: Vec<_> = stream::iter(own)
            .map(|name| async move {
                match self.ask(&name).await {
                    Ok(collection) => Ok(Some(collection)),
                    // Removed since, not ready, or none of ours.
                    Err(Error::NoCollection(_)) => Ok(None),
                    Err(error) => Err(error),
                }
            })
            .buffer_unordered(PARALLEL_CALLS)
            .try_filter_map(|found| async move { Ok(found) })
            .try_collect()
            .await?;
        collections.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(collections)
    }

    pub(super) async fn set_vector_index(
        &self,
        name: CollectionName,
        change: VectorIndexChange,
    ) -> Result<Collection, Error> {
        let (info, record) = self.look_up(&name).await?;
        let before = record.collection(&info)?;
        let index = change.of(before.vector_index);
        if index == before.vector_index {
            return Ok(before);
        }
        let record = record.with_vector_index(index);
        let request = layout::update(self.outer_name(&name), &record, index)?;
        let updated = self.builders.0.clone().update(request).await;
        updated.map_err(|status| failed_on(&name, &status))?;
        self.ask(&name).await
    }

    /// Makes an index in place of another on its field.
    pub(super) async fn replace_index(
        &self,
        name: CollectionName,
        index: FieldIndex,
    ) -> Result<Collection, Error> {
        let collection = self.ask(&name).await?;
        if !collection.lacks_index(&index)? {
            return Ok(collection);
        }
        if let Some(kind) = collection.indexes.kind(&index.field) {
            self.drop_index(&name, &FieldIndex { kind, field: index.field.clone() }).await?;
        }
        self.make_index(&name, &index).await?;
        self.ask(&name).await
    }

    pub(super) async fn remove_index(
        &self,
        name: CollectionName,
        field: Field,
    ) -> Result<Collection, Error> {
        let collection = self.ask(&name).await?;
        let index = collection.indexes.chosen().find(|index| index.field == field);
        let index = index.ok_or_else(|| Error::NotIndexed(field.key()))?;
        self.drop_index(&name, &index).await?;
        self.ask(&name).await
    }

    async fn make_index(&self, name: &CollectionName, index: &FieldIndex) -> Result<(), Error> {
        // A field that every collection has is seldom filtered by, and links for all of them cost
        // more to build than the rest of the graph. Who chose a field filters by it.
        let links = Some(Indexes::built_in(&index.field).is_none());
        // The one that the index is known again by comes last, so that it is there if all are.
        for (path, schema) in lower::indexes(index).into_iter().rev() {
            self.make_path_index(name, path, schema, links).await?;
        }
        Ok(())
    }

    async fn make_path_index(
        &self,
        name: &CollectionName,
        path: String,
        schema: Schema,
        links: Option<bool>,
    ) -> Result<(), Error> {
        let request = CreateFieldIndexCollection {
            collection_name: self.outer_name(name),
            wait: Some(true),
            field_name: path,
            field_type: Some(layout::field_type(schema).into()),
            field_index_params: Some(PayloadIndexParams {
                index_params: Some(layout::index_params(schema, links)),
            }),
            ..CreateFieldIndexCollection::default()
        };
        let answer = self.builders.1.clone().create_field_index(request).await;
        completed(answer.map_err(|status| failed_on(name, &status))?.into_inner().result)
    }

    async fn drop_index(&self, name: &CollectionName, index: &FieldIndex) -> Result<(), Error> {
        for (path, _) in lower::indexes(index) {
            let request = DeleteFieldIndexCollection {
                collection_name: self.outer_name(name),
                wait: Some(true),
                field_name: path,
                ..DeleteFieldIndexCollection::default()
            };
            let answer = self.builders.1.clone().delete_field_index(request).await;
            completed(answer.map_err(|status| failed_on(name, &status))?.into_inner().result)?;
        }
        Ok(())
    }

    pub(super) async fn set_alias(
        &self,
        alias: CollectionName,
        name: CollectionName,
    ) -> Result<Option<CollectionName>, Error> {
        if self.ask(&name).await?.name != name {
            return Err(Error::NoCollection(name));
        }
        let before = self.aliases().await?.remove(&alias);
        // Moves one that is there, in one step. To delete it first, be it in the same call, would
        // lose it if the collection goes in between.
        let action = Action::CreateAlias(CreateAlias {
            collection_name: self.outer_name(&name),
            alias_name: self.outer_name(&alias),
        });
        let changed = self.change_aliases(action).await;
        changed.map_err(|status| exists_or(&alias, &status, |status| failed_on(&name, status)))?;
        Ok(before)
    }

    pub(super) async fn remove_alias(&self, alias: CollectionName) -> Result<(), Error> {
        // The server does not say whether it was there.
        if !self.aliases().await?.contains_key(&alias) {
            return Err(Error::NoAlias(alias));
        }
        let action = Action::DeleteAlias(DeleteAlias { alias_name: self.outer_name(&alias) });
        self.change_aliases(action).await.map_err(|status| failed(&status))?;
        Ok(())
    }

    async fn change_aliases(&self, action: Action) -> Result<(), RpcStatus> {
        let actions = vec![AliasOperations { action: Some(action) }];
        let request = ChangeAliases { actions, timeout: None };
        self.collections.clone().update_aliases(request).await.map(drop)
    }

    pub(super) async fn aliases(&self) -> Result<BTreeMap<CollectionName, CollectionName>, Error> {
        let answer = self.collections.clone().list_aliases(ListAliasesRequest {}).await;
        let all = answer.map_err(|status| failed(&status))?.into_inner().aliases;
        let own = all.iter().filter_map(|alias| {
            Some((self.own_name(&alias.alias_name)?, self.own_name(&alias.collection_name)?))
        });
        Ok(own.collect())
    }

    pub(super) async fn status(&self, name: &CollectionName) -> Result<Status, Error> {
        let (info, record) = self.look_up(name).await?;
        let mut indexed = info.indexed_vectors_count.unwrap_or_default();
        if !record.collection(&info)?.word_fields.is_empty() {
            // They are all indexed, and counted along with those that matter here.
            indexed = indexed.saturating_sub(self.count_texts(name).await?);
        }
        let is_ok = info.optimizer_status.as_ref().is_none_or(|status| status.ok);
        let state = match info.status() {
            CollectionStatus::Green if is_ok => IndexState::Ready,
            // Grey waits for the first write after a start.
            CollectionStatus::Yellow | CollectionStatus::Grey if is_ok => IndexState::Building,
            CollectionStatus::Green
            | CollectionStatus::Yellow
            | CollectionStatus::Grey
            | CollectionStatus::Red
            | CollectionStatus::UnknownCollectionStatus => IndexState::Failed,
        };
        let unindexed = info.points_count.unwrap_or_default().saturating_sub(indexed);
        Ok(Status { unindexed, state, disk_bytes: None })
    }

    /// About how many items have words.
    async fn count_texts(&self, name: &CollectionName) -> Result<u64, Error> {
        let request = CountPoints {
            collection_name: self.outer_name(name),
            filter: Some(Filter::must([Condition::has_vector(WORDS_VECTOR)])),
            exact: Some(false),
            ..CountPoints::default()
        };
        let answer = self.points.clone().count(request).await;
        let counted = answer.map_err(|status| failed_on(name, &status))?.into_inner().result;
        Ok(counted.unwrap_or_default().count)
    }
}

fn exists_or(
    name: &CollectionName,
    status: &RpcStatus,
    other: impl FnOnce(&RpcStatus) -> Error,
) -> Error {
    if status.code() == Code::AlreadyExists {
        return Error::CollectionExists(name.clone());
    }
    other(status)
}
