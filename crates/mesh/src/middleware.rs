//! Layers written as a function of a request and what comes next.
//!
//! Every layer of this crate does a little before and after a call, so none needs a future type of
//! its own. Each costs one allocation per call, which is nothing beside a forward pass.

use std::future::Future;

use http::{Request, Response};
use tonic::body::Body;
use tower::layer::{LayerFn, layer_fn};
use tower::util::{BoxCloneSyncService, service_fn};

/// The rest of a stack: call it with `oneshot`.
pub(crate) type Next<E> = BoxCloneSyncService<Request<Body>, Response<Body>, E>;

/// Makes a layer of `middleware`.
pub(crate) fn from_fn<F, R, E>(middleware: F) -> LayerFn<impl Fn(Next<E>) -> Next<E> + Clone>
where
    F: Fn(Request<Body>, Next<E>) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Result<Response<Body>, E>> + Send + 'static,
    E: Send + 'static,
{
    layer_fn(move |next: Next<E>| {
        let middleware = middleware.clone();
        BoxCloneSyncService::new(service_fn(move |request| middleware(request, next.clone())))
    })
}
