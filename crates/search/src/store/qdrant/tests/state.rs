//! What the server of these tests keeps, and how it answers.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use qdrant_client::qdrant::alias_operations::Action;
use qdrant_client::qdrant::group_id::Kind as GroupKind;
use qdrant_client::qdrant::order_value::Variant as OrderVariant;
use qdrant_client::qdrant::points_selector::PointsSelectorOneOf;
use qdrant_client::qdrant::vector_input::Variant as InputVariant;
use qdrant_client::qdrant::with_payload_selector::SelectorOptions as PayloadOptions;
use qdrant_client::qdrant::with_vectors_selector::SelectorOptions as VectorOptions;
use qdrant_client::qdrant::{
    AliasDescription, BatchResult, ChangeAliases, CollectionConfig, CollectionDescription,
    CollectionInfo, CollectionOperationResponse, CollectionStatus, CountPoints, CountResponse,
    CountResult, CreateCollection, CreateFieldIndexCollection, DeleteCollection,
    DeleteFieldIndexCollection, DeletePoints, DenseVector, Direction, FacetCounts, FacetHit,
    FacetResponse, FacetValue, FieldType, Filter, GetCollectionInfoRequest,
    GetCollectionInfoResponse, GetPoints, GetResponse, GroupId, GroupsResult, HealthCheckReply,
    HealthCheckRequest, ListAliasesRequest, ListAliasesResponse, ListCollectionsRequest,
    ListCollectionsResponse, Modifier, NamedVectorsOutput, OptimizerStatus, OrderBy, OrderValue,
    PayloadSchemaInfo, PayloadSchemaType, PointGroup, PointId, PointStruct,
    PointsOperationResponse, Query, QueryBatchPoints, QueryBatchResponse, QueryGroupsResponse,
    QueryPointGroups, QueryPoints, RetrievedPoint, ScoredPoint, ScrollPoints, ScrollResponse,
    UpdateCollection, UpdateMode, UpdateResult, UpdateStatus, UpsertPoints, Value, VectorOutput,
    VectorsOutput, WithPayloadSelector, WithVectorsSelector, facet_value, point_id, query, vector,
    vector_output, vectors, vectors_config, vectors_output,
};
use serde_json::{Map, Value as Json};
use tonic::Status;

use super::questions::{Stored, passes, values, whole};

/// Everything on the server.
#[derive(Debug)]
pub(super) struct State {
    pub(super) version: String,
    pub(super) collections: BTreeMap<String, Shelf>,
    pub(super) aliases: BTreeMap<String, String>,
    /// How a write ends.
    pub(super) write_status: UpdateStatus,
    /// The last of each, to see what was asked.
    pub(super) last_query: Option<QueryPoints>,
    pub(super) last_upsert: Option<UpsertPoints>,
}

/// A collection.
#[derive(Clone, Debug)]
pub(super) struct Shelf {
    pub(super) made_as: CreateCollection,
    pub(super) changed_to: Option<UpdateCollection>,
    pub(super) metadata: HashMap<String, Value>,
    pub(super) schema: HashMap<String, PayloadSchemaType>,
    pub(super) index_params: HashMap<String, CreateFieldIndexCollection>,
    points: BTreeMap<String, Stored>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            version: "1.18.3".to_owned(),
            collections: BTreeMap::new(),
            aliases: BTreeMap::new(),
            write_status: UpdateStatus::Completed,
            last_query: None,
            last_upsert: None,
        }
    }
}

// === impl State ===

impl State {
    pub(super) fn health_check(&self, _: HealthCheckRequest) -> Result<HealthCheckReply, Status> {
        Ok(HealthCheckReply { version: self.version.clone(), ..HealthCheckReply::default() })
    }

    pub(super) fn collection_info(
        &self,
        request: GetCollectionInfoRequest,
    ) -> Result<GetCollectionInfoResponse, Status> {
        let shelf = self.shelf(&request.collection_name)?;
        let schema = shelf.schema.iter().map(|(path, data_type)| {
            let data_type = (*data_type).into();
            (path.clone(), PayloadSchemaInfo { data_type, params: None, points: None })
        });
        let config =
            CollectionConfig { metadata: shelf.metadata.clone(), ..CollectionConfig::default() };
        let info = CollectionInfo {
            status: CollectionStatus::Green.into(),
            optimizer_status: Some(OptimizerStatus { ok: true, error: String::new() }),
            config: Some(config),
            payload_schema: schema.collect(),
            points_count: Some(shelf.points.len() as u64),
            indexed_vectors_count: Some(0),
            ..CollectionInfo::default()
        };
        Ok(GetCollectionInfoResponse { result: Some(info), time: 0.0 })
    }

    pub(super) fn list_collections(
        &self,
        _: ListCollectionsRequest,
    ) -> Result<ListCollectionsResponse, Status> {
        let names = self.collections.keys().cloned();
        let collections = names.map(|name| CollectionDescription { name }).collect();
        Ok(ListCollectionsResponse { collections, time: 0.0 })
    }

    pub(super) fn create_collection(
        &mut self,
        request: CreateCollection,
    ) -> Result<CollectionOperationResponse, Status> {
        let name = request.collection_name.clone();
        if self.collections.contains_key(&name) {
            return Err(Status::already_exists(format!("Collection `{name}` already exists!")));
        }
        if self.aliases.contains_key(&name) {
            return Err(Status::invalid_argument("Alias with the same name already exists"));
        }
        let shelf = Shelf {
            metadata: request.metadata.clone(),
            made_as: request,
            changed_to: None,
            schema: HashMap::new(),
            index_params: HashMap::new(),
            points: BTreeMap::new(),
        };
        self.collections.insert(name, shelf);
        done(true)
    }

    pub(super) fn update_collection(
        &mut self,
        request: UpdateCollection,
    ) -> Result<CollectionOperationResponse, Status> {
        let shelf = self.shelf_mut(&request.collection_name)?;
        shelf.metadata.extend(request.metadata.clone());
        shelf.changed_to = Some(request);
        done(true)
    }

    pub(super) fn delete_collection(
        &mut self,
        request: DeleteCollection,
    ) -> Result<CollectionOperationResponse, Status> {
        self.aliases.retain(|_, target| *target != request.collection_name);
        done(self.collections.remove(&request.collection_name).is_some())
    }

    pub(super) fn change_aliases(
        &mut self,
        request: ChangeAliases,
    ) -> Result<CollectionOperationResponse, Status> {
        for operation in request.actions {
            match operation.action {
                Some(Action::CreateAlias(create)) => {
                    if !self.collections.contains_key(&create.collection_name) {
                        return Err(no_collection(&create.collection_name));
                    }
                    if self.collections.contains_key(&create.alias_name) {
                        return Err(Status::already_exists("Collection already exists!"));
                    }
                    self.aliases.insert(create.alias_name, create.collection_name);
                }
                Some(Action::DeleteAlias(delete)) => drop(self.aliases.remove(&delete.alias_name)),
                Some(Action::RenameAlias(_)) | None => {
                    return Err(Status::unimplemented("the store does not ask this"));
                }
            }
        }
        done(true)
    }

    pub(super) fn list_aliases(
        &self,
        _: ListAliasesRequest,
    ) -> Result<ListAliasesResponse, Status> {
        let describe = |(alias, collection): (&String, &String)| AliasDescription {
            alias_name: alias.clone(),
            collection_name: collection.clone(),
        };
        Ok(ListAliasesResponse { aliases: self.aliases.iter().map(describe).collect(), time: 0.0 })
    }

    pub(super) fn create_field_index(
        &mut self,
        request: CreateFieldIndexCollection,
    ) -> Result<PointsOperationResponse, Status> {
        let data_type = match request.field_type() {
            FieldType::Keyword => PayloadSchemaType::Keyword,
            FieldType::Integer => PayloadSchemaType::Integer,
            FieldType::Float => PayloadSchemaType::Float,
            FieldType::Bool => PayloadSchemaType::Bool,
            FieldType::Geo => PayloadSchemaType::Geo,
            FieldType::Text | FieldType::Datetime | FieldType::Uuid => {
                return Err(Status::unimplemented("the store does not ask this"));
            }
        };
        let shelf = self.shelf_mut(&request.collection_name)?;
        shelf.schema.insert(request.field_name.clone(), data_type);
        shelf.index_params.insert(request.field_name.clone(), request);
        self.written()
    }

    pub(super) fn delete_field_index(
        &mut self,
        request: DeleteFieldIndexCollection,
    ) -> Result<PointsOperationResponse, Status> {
        self.shelf_mut(&request.collection_name)?.schema.remove(&request.field_name);
        self.written()
    }

    pub(super) fn upsert(
        &mut self,
        request: UpsertPoints,
    ) -> Result<PointsOperationResponse, Status> {
        self.last_upsert = Some(request.clone());
        let mode = request.update_mode();
        let shelf = self.shelf_mut(&request.collection_name)?;
        let points: Vec<_> = request
            .points
            .into_iter()
            .map(|point| shelf.take_in(point))
            .collect::<Result<_, _>>()?;
        for point in points {
            let own = shelf.points.get(&point.id);
            let passes_filter = match (&request.update_filter, own) {
                (Some(filter), Some(own)) => passes(filter, own)?,
                (_, _) => true,
            };
            let fits_mode = match mode {
                UpdateMode::Upsert => true,
                UpdateMode::InsertOnly => own.is_none(),
                UpdateMode::UpdateOnly => own.is_some(),
            };
            if passes_filter && fits_mode {
                shelf.points.insert(point.id.clone(), point);
            }
        }
        self.written()
    }

    pub(super) fn delete_points(
        &mut self,
        request: DeletePoints,
    ) -> Result<PointsOperationResponse, Status> {
        let shelf = self.shelf_mut(&request.collection_name)?;
        match request.points.and_then(|points| points.points_selector_one_of) {
            Some(PointsSelectorOneOf::Points(list)) => {
                for id in &list.ids {
                    shelf.points.remove(&uuid(id)?);
                }
            }
            Some(PointsSelectorOneOf::Filter(filter)) => {
                let passing = shelf.passing(Some(&filter))?.into_iter();
                for id in passing.map(|point| point.id.clone()).collect::<Vec<_>>() {
                    shelf.points.remove(&id);
                }
            }
            None => return Err(Status::invalid_argument("no selector of points")),
        }
        self.written()
    }

    pub(super) fn get_points(&self, request: GetPoints) -> Result<GetResponse, Status> {
        let shelf = self.shelf(&request.collection_name)?;
        let mut result = Vec::new();
        for id in &request.ids {
            let point = shelf.points.get(&uuid(id)?);
            result.extend(point.map(|point| {
                retrieved(point, request.with_payload.as_ref(), request.with_vectors.as_ref())
            }));
        }
        Ok(GetResponse { result, ..GetResponse::default() })
    }

    pub(super) fn count(&self, request: CountPoints) -> Result<CountResponse, Status> {
        let count = self.shelf(&request.collection_name)?.passing(request.filter.as_ref())?.len();
        let result = Some(CountResult { count: count as u64 });
        Ok(CountResponse { result, ..CountResponse::default() })
    }

    pub(super) fn scroll(&self, request: ScrollPoints) -> Result<ScrollResponse, Status> {
        let shelf = self.shelf(&request.collection_name)?;
        let limit = request.limit.unwrap_or(10) as usize;
        if limit == 0 {
            return Err(Status::invalid_argument("limit must be at least 1"));
        }
        let passing = shelf.passing(request.filter.as_ref())?;
        let shown = |point: &Stored| {
            retrieved(point, request.with_payload.as_ref(), request.with_vectors.as_ref())
        };
        let result: Vec<_> = match &request.order_by {
            Some(order_by) => {
                let ordered = shelf.ordered(passing, order_by)?.into_iter().take(limit);
                let with_value = |(point, value): (&Stored, OrderVariant)| RetrievedPoint {
                    order_value: Some(OrderValue { variant: Some(value) }),
                    ..shown(point)
                };
                ordered.map(with_value).collect()
            }
            None => {
                let from = request.offset.as_ref().map(uuid).transpose()?;
                let rest = passing
                    .into_iter()
                    .filter(|point| from.as_ref().is_none_or(|from| point.id >= *from));
                rest.take(limit).map(shown).collect()
            }
        };
        Ok(ScrollResponse { result, ..ScrollResponse::default() })
    }

    pub(super) fn query_batch(
        &mut self,
        request: QueryBatchPoints,
    ) -> Result<QueryBatchResponse, Status> {
        self.last_query = request.query_points.last().cloned();
        let answers = request.query_points.iter().map(|query| self.query(query));
        let result = answers.collect::<Result<_, _>>()?;
        Ok(QueryBatchResponse { result, ..QueryBatchResponse::default() })
    }

    fn query(&self, request: &QueryPoints) -> Result<BatchResult, Status> {
        let shelf = self.shelf(&request.collection_name)?;
        let scored =
            shelf.scored(request.query.as_ref(), request.using(), request.filter.as_ref())?;
        let hits = scored.into_iter().take(request.limit() as usize).map(|(point, score)| {
            hit(point, score, request.with_payload.as_ref(), request.with_vectors.as_ref())
        });
        Ok(BatchResult { result: hits.collect() })
    }

    pub(super) fn query_groups(
        &self,
        request: QueryPointGroups,
    ) -> Result<QueryGroupsResponse, Status> {
        let shelf = self.shelf(&request.collection_name)?;
        let scored =
            shelf.scored(request.query.as_ref(), request.using(), request.filter.as_ref())?;
        let mut groups: Vec<PointGroup> = Vec::new();
        for (point, score) in scored {
            for id in group_ids(&values(&point.payload, &request.group_by)) {
                let id = Some(GroupId { kind: Some(id) });
                let at = groups.iter().position(|group| group.id == id).unwrap_or_else(|| {
                    groups.push(PointGroup { id: id.clone(), ..PointGroup::default() });
                    groups.len() - 1
                });
                if (groups[at].hits.len() as u64) < request.group_size() {
                    groups[at].hits.push(hit(
                        point,
                        score,
                        request.with_payload.as_ref(),
                        request.with_vectors.as_ref(),
                    ));
                }
            }
        }
        groups.truncate(request.limit() as usize);
        let result = Some(GroupsResult { groups });
        Ok(QueryGroupsResponse { result, ..QueryGroupsResponse::default() })
    }

    pub(super) fn facet(&self, request: FacetCounts) -> Result<FacetResponse, Status> {
        let shelf = self.shelf(&request.collection_name)?;
        let data_type = shelf.schema.get(&request.key).copied();
        let data_type = data_type.ok_or_else(|| no_index(&request.key))?;
        let mut counts: BTreeMap<(String, i64), (facet_value::Variant, u64)> = BTreeMap::new();
        for point in shelf.passing(request.filter.as_ref())? {
            let values = values(&point.payload, &request.key).into_iter();
            let mut known: Vec<_> = values
                .filter_map(|value| match (data_type, value) {
                    (PayloadSchemaType::Keyword, Json::String(text)) => {
                        Some(((text.clone(), 0), facet_value::Variant::StringValue(text.clone())))
                    }
                    (PayloadSchemaType::Integer, Json::Number(_)) => {
                        let number = whole(value)?;
                        let variant = facet_value::Variant::IntegerValue(number);
                        Some(((String::new(), number), variant))
                    }
                    (PayloadSchemaType::Bool, Json::Bool(flag)) => {
                        let variant = facet_value::Variant::BoolValue(*flag);
                        Some(((String::new(), i64::from(*flag)), variant))
                    }
                    _ => None,
                })
                .collect();
            known.sort_by(|(a, _), (b, _)| a.cmp(b));
            known.dedup_by(|(a, _), (b, _)| a == b);
            for (key, variant) in known {
                counts.entry(key).or_insert((variant, 0)).1 += 1;
            }
        }
        let mut hits: Vec<_> = counts.into_values().collect();
        hits.sort_by_key(|(_, count)| Reverse(*count));
        let hits = hits.into_iter().take(request.limit() as usize).map(|(variant, count)| {
            FacetHit { value: Some(FacetValue { variant: Some(variant) }), count }
        });
        Ok(FacetResponse { hits: hits.collect(), ..FacetResponse::default() })
    }

    fn written(&self) -> Result<PointsOperationResponse, Status> {
        let status = self.write_status.into();
        let result = Some(UpdateResult { operation_id: Some(0), status });
        Ok(PointsOperationResponse { result, ..PointsOperationResponse::default() })
    }

    fn real_name(&self, name: &str) -> String {
        self.aliases.get(name).cloned().unwrap_or_else(|| name.to_owned())
    }

    fn shelf(&self, name: &str) -> Result<&Shelf, Status> {
        self.collections.get(&self.real_name(name)).ok_or_else(|| no_collection(name))
    }

    fn shelf_mut(&mut self, name: &str) -> Result<&mut Shelf, Status> {
        let real = self.real_name(name);
        self.collections.get_mut(&real).ok_or_else(|| no_collection(name))
    }
}

// === impl Shelf ===

impl Shelf {
    pub(super) fn len(&self) -> usize {
        self.points.len()
    }

    fn size_of(&self, vector: &str) -> Option<usize> {
        match self.made_as.vectors_config.as_ref()?.config.as_ref()? {
            vectors_config::Config::Params(params) => {
                vector.is_empty().then_some(params.size as usize)
            }
            vectors_config::Config::ParamsMap(map) => Some(map.map.get(vector)?.size as usize),
        }
    }

    fn has_idf(&self, vector: &str) -> Option<bool> {
        let params = self.made_as.sparse_vectors_config.as_ref()?.map.get(vector)?;
        Some(params.modifier() == Modifier::Idf)
    }

    /// Looks at a point as strictly as the server does.
    fn take_in(&self, point: PointStruct) -> Result<Stored, Status> {
        let id = uuid(&point.id.ok_or_else(|| Status::invalid_argument("no id"))?)?;
        let payload = point.payload.into_iter().map(|(key, value)| (key, Json::from(value)));
        let mut stored = Stored {
            id,
            payload: payload.collect(),
            dense: HashMap::new(),
            sparse: HashMap::new(),
        };
        let named = match point.vectors.and_then(|vectors| vectors.vectors_options) {
            Some(vectors::VectorsOptions::Vectors(named)) => named.vectors,
            Some(vectors::VectorsOptions::Vector(one)) => HashMap::from([(String::new(), one)]),
            None => HashMap::new(),
        };
        for (name, vector) in named {
            match vector.vector {
                Some(vector::Vector::Dense(dense)) => {
                    self.check_size(&name, dense.data.len())?;
                    stored.dense.insert(name, unit(dense.data));
                }
                Some(vector::Vector::Sparse(sparse)) => {
                    self.has_idf(&name).ok_or_else(|| no_vector(&name))?;
                    let values = sparse.indices.into_iter().zip(sparse.values).collect();
                    stored.sparse.insert(name, values);
                }
                _ => return Err(Status::invalid_argument("no such kind of vector")),
            }
        }
        Ok(stored)
    }

    fn check_size(&self, vector: &str, actual: usize) -> Result<(), Status> {
        let expected = self.size_of(vector).ok_or_else(|| no_vector(vector))?;
        if expected == actual {
            return Ok(());
        }
        let text = format!("Vector dimension error: expected dim: {expected}, got {actual}");
        Err(Status::invalid_argument(text))
    }

    /// In order of id.
    fn passing(&self, filter: Option<&Filter>) -> Result<Vec<&Stored>, Status> {
        let mut passing = Vec::new();
        for point in self.points.values() {
            if filter.map_or(Ok(true), |filter| passes(filter, point))? {
                passing.push(point);
            }
        }
        Ok(passing)
    }

    fn ordered<'a>(
        &self,
        points: Vec<&'a Stored>,
        order_by: &OrderBy,
    ) -> Result<Vec<(&'a Stored, OrderVariant)>, Status> {
        let data_type = self.schema.get(&order_by.key).copied();
        let data_type = data_type.ok_or_else(|| no_index(&order_by.key))?;
        let mut ordered = Vec::new();
        for point in points {
            for value in values(&point.payload, &order_by.key) {
                let variant = match data_type {
                    PayloadSchemaType::Integer => whole(value).map(OrderVariant::Int),
                    PayloadSchemaType::Float => value.as_f64().map(OrderVariant::Float),
                    PayloadSchemaType::Keyword
                    | PayloadSchemaType::Bool
                    | PayloadSchemaType::Geo
                    | PayloadSchemaType::Text
                    | PayloadSchemaType::Datetime
                    | PayloadSchemaType::Uuid
                    | PayloadSchemaType::UnknownType => return Err(no_index(&order_by.key)),
                };
                ordered.extend(variant.map(|variant| (point, variant)));
            }
        }
        let number = |variant: &OrderVariant| match variant {
            OrderVariant::Int(number) => *number as f64,
            OrderVariant::Float(number) => *number,
        };
        ordered.sort_by(|(_, a), (_, b)| number(a).total_cmp(&number(b)));
        if order_by.direction() == Direction::Desc {
            ordered.reverse();
        }
        Ok(ordered)
    }

    /// All that a query finds, best first, and equal scores in no order that callers know.
    fn scored(
        &self,
        query: Option<&Query>,
        using: &str,
        filter: Option<&Filter>,
    ) -> Result<Vec<(&Stored, f32)>, Status> {
        let candidates = self.passing(filter)?.into_iter();
        let input = match query.and_then(|query| query.variant.as_ref()) {
            Some(query::Variant::Nearest(input)) => input.variant.as_ref(),
            _ => return Err(Status::unimplemented("the store does not ask this")),
        };
        let mut scored: Vec<_> = match input {
            Some(InputVariant::Dense(dense)) => {
                self.check_size(using, dense.data.len())?;
                let wanted = unit(dense.data.clone());
                let score = |own: &Vec<f32>| own.iter().zip(&wanted).map(|(a, b)| a * b).sum();
                candidates
                    .filter_map(|point| Some((point, point.dense.get(using).map(score)?)))
                    .collect()
            }
            Some(InputVariant::Sparse(sparse)) => {
                let has_idf = self.has_idf(using).ok_or_else(|| no_vector(using))?;
                let query = sparse.indices.iter().copied().zip(sparse.values.iter().copied());
                let weighted: Vec<_> = query
                    .map(|(word, weight)| {
                        let idf = if has_idf { self.idf(using, word) } else { 1.0 };
                        (word, weight * idf)
                    })
                    .collect();
                let score = |own: &HashMap<u32, f32>| {
                    let common: Vec<f32> = weighted
                        .iter()
                        .filter_map(|(word, weight)| Some(own.get(word)? * weight))
                        .collect();
                    (!common.is_empty()).then(|| common.iter().sum())
                };
                candidates
                    .filter_map(|point| Some((point, point.sparse.get(using).and_then(score)?)))
                    .collect()
            }
            _ => return Err(Status::unimplemented("the store does not ask this")),
        };
        scored.sort_by(|(_, a): &(_, f32), (_, b)| b.total_cmp(a));
        Ok(scored)
    }

    fn idf(&self, vector: &str, word: u32) -> f32 {
        let texts: Vec<_> =
            self.points.values().filter_map(|point| point.sparse.get(vector)).collect();
        let with = texts.iter().filter(|text| text.contains_key(&word)).count() as f32;
        let without = texts.len() as f32 - with;
        ((without + 0.5) / (with + 0.5)).ln_1p()
    }
}

fn done(result: bool) -> Result<CollectionOperationResponse, Status> {
    Ok(CollectionOperationResponse { result, time: 0.0 })
}

fn no_collection(name: &str) -> Status {
    Status::not_found(format!("Collection `{name}` doesn't exist!"))
}

fn no_vector(name: &str) -> Status {
    Status::invalid_argument(format!("Not existing vector name error: {name}"))
}

fn no_index(path: &str) -> Status {
    Status::invalid_argument(format!("Index required but not found for \"{path}\""))
}

fn uuid(id: &PointId) -> Result<String, Status> {
    match &id.point_id_options {
        Some(point_id::PointIdOptions::Uuid(uuid)) => Ok(uuid.clone()),
        Some(point_id::PointIdOptions::Num(_)) | None => {
            Err(Status::invalid_argument("the store has no other ids"))
        }
    }
}

fn unit(mut values: Vec<f32>) -> Vec<f32> {
    let length = values.iter().map(|value| value * value).sum::<f32>().sqrt();
    if (length - 1.0).abs() > f32::EPSILON {
        values.iter_mut().for_each(|value| *value /= length);
    }
    values
}

/// The different values that one can group by; none at all if there is one that one can't.
fn group_ids(values: &[&Json]) -> Vec<GroupKind> {
    let mut ids = Vec::new();
    for value in values {
        let id = match value {
            Json::String(text) => GroupKind::StringValue(text.clone()),
            Json::Number(number) => match (number.as_u64(), number.as_i64()) {
                (Some(number), _) => GroupKind::UnsignedValue(number),
                (None, Some(number)) => GroupKind::IntegerValue(number),
                (None, None) => return Vec::new(),
            },
            Json::Null | Json::Bool(_) | Json::Array(_) | Json::Object(_) => return Vec::new(),
        };
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
    ids
}

fn shown_payload(
    payload: &Map<String, Json>,
    selector: Option<&WithPayloadSelector>,
) -> HashMap<String, Value> {
    let options = selector.and_then(|selector| selector.selector_options.as_ref());
    let is_shown = |key: &String| match options {
        Some(PayloadOptions::Enable(all)) => *all,
        Some(PayloadOptions::Include(include)) => include.fields.contains(key),
        Some(PayloadOptions::Exclude(exclude)) => !exclude.fields.contains(key),
        None => false,
    };
    let shown = payload.iter().filter(|(key, _)| is_shown(key));
    shown.map(|(key, value)| (key.clone(), Value::from(value.clone()))).collect()
}

fn shown_vectors(point: &Stored, selector: Option<&WithVectorsSelector>) -> Option<VectorsOutput> {
    let names = match selector.and_then(|selector| selector.selector_options.as_ref()) {
        Some(VectorOptions::Include(include)) => include.names.clone(),
        Some(VectorOptions::Enable(true)) => point.dense.keys().cloned().collect(),
        Some(VectorOptions::Enable(false)) | None => return None,
    };
    let shown = names.into_iter().filter_map(|name| {
        let data = point.dense.get(&name)?.clone();
        let vector = Some(vector_output::Vector::Dense(DenseVector { data }));
        Some((name, VectorOutput { vector, ..VectorOutput::default() }))
    });
    let named = NamedVectorsOutput { vectors: shown.collect() };
    let vectors_options = Some(vectors_output::VectorsOptions::Vectors(named));
    Some(VectorsOutput { vectors_options })
}

fn retrieved(
    point: &Stored,
    payload: Option<&WithPayloadSelector>,
    vectors: Option<&WithVectorsSelector>,
) -> RetrievedPoint {
    RetrievedPoint {
        id: Some(point.id.clone().into()),
        payload: shown_payload(&point.payload, payload),
        vectors: shown_vectors(point, vectors),
        ..RetrievedPoint::default()
    }
}

fn hit(
    point: &Stored,
    score: f32,
    payload: Option<&WithPayloadSelector>,
    vectors: Option<&WithVectorsSelector>,
) -> ScoredPoint {
    let RetrievedPoint { id, payload, vectors, .. } = retrieved(point, payload, vectors);
    ScoredPoint { id, payload, vectors, score, ..ScoredPoint::default() }
}
