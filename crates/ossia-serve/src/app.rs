//! The router: every route stands in one table with who may use it. What is not open needs a key, so a route that
//! forgets to say something is closed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use axum::response::Response;
use axum::routing::MethodRouter;
use schemars::{JsonSchema, Schema, SchemaGenerator};

use crate::adapters::Adapters;
use crate::audit::Audit;
use crate::auth::{Auth, Identity, Scope};
use crate::counters::Counters;
use crate::error::ApiError;
use crate::grading::Grading;
use crate::guard::{self, Accounts, Doors};
use crate::keeping::Keeping;
use crate::models::ServedModel;
use crate::reasoning::ReasoningMemory;
use crate::routes;
use crate::turn::Turns;
use crate::types::body::MOST_BYTES;
use crate::ui;

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
pub struct App {
    /// The engine and the model's text.
    pub turns: Arc<Turns>,
    /// The model's names and numbers.
    pub model: ServedModel,
    /// What it has learned besides, by name.
    pub adapters: Arc<Adapters>,
    /// Who knows graders; None: nobody trains here.
    pub grading: Option<Arc<dyn Grading>>,
    /// Changes with the program and the model: the same one, the same seed, the same answer.
    pub fingerprint: String,
    /// Chain of thought before calls.
    pub memory: ReasoningMemory,
    /// What lasts: the database, and the responses that are being made.
    pub keeping: Keeping,
    /// The keys.
    pub auth: Auth,
    /// Quotas and counters of generations; the ledger of `turns`.
    pub accounts: Arc<Accounts>,
    /// The audit log, unless it is off.
    pub audit: Option<Audit>,
    /// Counters of requests.
    pub counters: Arc<Counters>,
    /// Hosts and origins.
    pub doors: Doors,
    /// Set when the server is going down.
    pub draining: AtomicBool,
}

/// See [`App`].
pub type Shared = Arc<App>;

impl App {
    /// Takes no new work from now on.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
        self.turns.engine().drain();
    }

    /// The identity of a request that goes to a handler: with the trail that the audit log follows.
    pub fn followed(&self, identity: Identity, request_id: &str, route: &str) -> Result<Identity, ApiError> {
        match &self.audit {
            None => Ok(identity),
            Some(audit) => Ok(Identity { trail: audit.begin(&identity, request_id, route)?, ..identity }),
        }
    }

    /// Whether new work is taken.
    pub fn is_ready(&self) -> bool {
        !self.draining.load(Ordering::Relaxed)
    }
}

/// Makes a response of an error, in the form of a route's API.
pub type Refusal = fn(ApiError) -> Response;

/// One line of the table.
pub struct Route {
    /// The method, in capitals.
    pub method: &'static str,
    /// The path, in axum's notation.
    pub path: &'static str,
    /// Who may use it.
    pub access: Access,
    /// What its body and its answer look like, for the description of the API.
    pub shapes: Shapes,
    /// The form of a refusal, where the route generates: it refuses before it reads when too much waits already.
    pub refusal: Option<Refusal>,
    handler: MethodRouter<Shared>,
}

/// Schemas of a body and an answer, where they are JSON.
#[derive(Debug, Clone, Copy, Default)]
pub struct Shapes {
    /// Of the request.
    pub body: Option<fn(&mut SchemaGenerator) -> Schema>,
    /// Of the response.
    pub answer: Option<fn(&mut SchemaGenerator) -> Schema>,
}

impl Route {
    /// `handler` must serve `method` and no other.
    pub fn new(method: &'static str, path: &'static str, access: Access, handler: MethodRouter<Shared>) -> Self {
        Self { method, path, access, shapes: Shapes::default(), refusal: None, handler }
    }

    /// Its body is a `T`.
    pub fn takes<T: JsonSchema>(mut self) -> Self {
        self.shapes.body = Some(|generator| generator.subschema_for::<T>());
        self
    }

    /// Its answer is a `T`.
    pub fn gives<T: JsonSchema>(mut self) -> Self {
        self.shapes.answer = Some(|generator| generator.subschema_for::<T>());
        self
    }

    /// It generates, so that it depends on how much waits.
    pub fn generates(mut self, refusal: Refusal) -> Self {
        self.refusal = Some(refusal);
        self
    }

    /// What serves it, without the guard: for requests whose key was looked at already.
    pub fn into_handler(self) -> MethodRouter<Shared> {
        self.handler
    }
}

/// Every route of the server.
pub fn table() -> Vec<Route> {
    let parts = [
        routes::batches::routes(),
        routes::chat::routes(),
        routes::completions::routes(),
        routes::conversations::routes(),
        routes::files::routes(),
        routes::fine_tuning::routes(),
        routes::health::routes(),
        routes::metrics::routes(),
        routes::models::routes(),
        routes::openapi::routes(),
        routes::ollama::routes(),
        routes::responses::routes(),
        ui::routes(),
    ];
    parts.into_iter().flatten().collect()
}

/// The router over the whole table.
pub fn router(app: Shared) -> Router {
    let mut router = Router::new();
    for Route { path, access, refusal, handler, .. } in table() {
        let guarded = handler.layer(from_fn_with_state((Arc::clone(&app), access, refusal), guard::keyed));
        router = router.route(path, guarded);
    }
    router
        .fallback(async || ApiError::NoRoute)
        .method_not_allowed_fallback(async || ApiError::Method)
        .layer(DefaultBodyLimit::max(MOST_BYTES))
        .layer(from_fn_with_state(Arc::clone(&app), guard::outer))
        .with_state(app)
}
