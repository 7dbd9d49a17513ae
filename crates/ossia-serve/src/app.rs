//! The router: every route stands in one table with who may use it. What is not open needs a key, so a route that
//! forgets to say something is closed.

use std::sync::Arc;

use axum::Router;
use axum::routing::MethodRouter;

use crate::auth::Scope;
use crate::error::ApiError;
use crate::routes;

/// Who may use a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Everybody: it tells nothing and changes nothing.
    Open,
    /// Whoever has a key.
    AnyKey,
    /// Whoever has a key with this scope.
    Key(Scope),
}

/// What all handlers share; they get it as `State<Shared>`.
pub struct App {}

/// See [`App`].
pub type Shared = Arc<App>;

/// One line of the table.
pub struct Route {
    /// The method, in capitals.
    pub method: &'static str,
    /// The path, in axum's notation.
    pub path: &'static str,
    /// Who may use it.
    pub access: Access,
    handler: MethodRouter<Shared>,
}

impl Route {
    /// `handler` must serve `method` and no other.
    pub fn new(method: &'static str, path: &'static str, access: Access, handler: MethodRouter<Shared>) -> Self {
        Self { method, path, access, handler }
    }
}

/// Every route of the server.
pub fn table() -> Vec<Route> {
    [routes::health::routes()].into_iter().flatten().collect()
}

/// The router over the whole table.
pub fn router(app: Shared) -> Router {
    let router = table().into_iter().fold(Router::new(), |router, route| router.route(route.path, route.handler));
    router.fallback(async || ApiError::NoRoute).method_not_allowed_fallback(async || ApiError::Method).with_state(app)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::body::Body;
    use axum::http::{Request, StatusCode};
    use tower::ServiceExt;

    use super::{App, router};

    async fn status(method: &str, path: &str) -> StatusCode {
        let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
        router(Arc::new(App {})).oneshot(request).await.unwrap().status()
    }

    #[tokio::test]
    async fn known_and_unknown() {
        assert_eq!(status("GET", "/health").await, StatusCode::OK);
        assert_eq!(status("POST", "/health").await, StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(status("GET", "/v1/nothing").await, StatusCode::NOT_FOUND);
    }
}
