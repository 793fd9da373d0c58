//! Finding what is known about a request, by method and path.

use std::sync::{Arc, LazyLock};

use http::Method;

use crate::Endpoint;

/// A table of endpoints that can be searched by method and path.
///
/// A look-up allocates nothing. The tree is matchit's, which axum routes with.
///
/// # Example
///
/// ```
/// use didit_api::{Endpoint, Routes};
/// use http::Method;
///
/// let routes = Routes::builder()
///     .endpoint(Endpoint::new("report-create", Method::POST, "/v3/reports/"))
///     .build()?;
///
/// let own = routes.find(&Method::POST, "/v3/reports/").map(|id| routes.get(id).name());
/// assert_eq!(own, Some("report-create"));
///
/// let didits = routes.find(&Method::GET, "/v3/sessions/").map(|id| routes.get(id).name());
/// assert_eq!(didits, Some("session-list"));
/// # Ok::<(), didit_api::routes::RoutesError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Routes {
    endpoints: Vec<Endpoint>,
    tree: matchit::Router<ByMethod>,
}

/// Names one endpoint of one [`Routes`]; an index, so that tables can run beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EndpointId(u16);

impl EndpointId {
    /// The endpoint's place in [`Routes::iter`].
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl Routes {
    /// Didit's own routes (API version 3), built once and shared.
    pub fn didit() -> Arc<Self> {
        static DIDIT: LazyLock<Arc<Routes>> = LazyLock::new(|| {
            // NOTE: the table is ours and a test builds it; if it ever failed, no route would be known, which
            // every reader takes as "be careful".
            Arc::new(Routes::builder().build().unwrap_or_else(|_| Routes::empty()))
        });
        Arc::clone(&DIDIT)
    }

    /// A table with no route at all.
    pub fn empty() -> Self {
        Self { endpoints: Vec::new(), tree: matchit::Router::new() }
    }

    /// Starts from Didit's routes; the user's own are added, or replace what has the same method and path.
    pub fn builder() -> RoutesBuilder {
        RoutesBuilder { endpoints: crate::table::endpoints() }
    }

    /// Starts from nothing, for another API.
    pub fn blank() -> RoutesBuilder {
        RoutesBuilder { endpoints: Vec::new() }
    }

    /// Finds the endpoint that a method and a path (without query) belong to.
    pub fn find(&self, method: &Method, path: &str) -> Option<EndpointId> {
        self.tree.at(path).ok()?.value.get(method)
    }

    /// Finds the endpoint with this name.
    pub fn named(&self, name: &str) -> Option<EndpointId> {
        self.iter().find(|(_, endpoint)| endpoint.name() == name).map(|(id, _)| id)
    }

    /// The endpoint behind an id that this table gave out.
    ///
    /// # Panics
    ///
    /// Only if the id comes from another, larger table.
    pub fn get(&self, id: EndpointId) -> &Endpoint {
        &self.endpoints[id.index()]
    }

    /// All endpoints, in order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = (EndpointId, &Endpoint)> {
        (0u16..).map(EndpointId).zip(&self.endpoints)
    }

    /// How many endpoints there are.
    pub fn len(&self) -> usize {
        self.endpoints.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.endpoints.is_empty()
    }
}

/// Collects endpoints for a [`Routes`].
#[derive(Clone, Debug)]
pub struct RoutesBuilder {
    endpoints: Vec<Endpoint>,
}

impl RoutesBuilder {
    /// Adds an endpoint, or replaces the one with the same method and path.
    #[must_use]
    pub fn endpoint(mut self, endpoint: Endpoint) -> Self {
        let same = |known: &&mut Endpoint| known.method() == endpoint.method() && known.path() == endpoint.path();
        match self.endpoints.iter_mut().find(same) {
            Some(known) => *known = endpoint,
            None => self.endpoints.push(endpoint),
        }
        self
    }

    /// Builds the table.
    ///
    /// # Errors
    ///
    /// [`RoutesError`] if a path is not a template, if two templates match the same paths under different spellings
    /// of a variable, if a name is used twice, or if there are more than 65 535 endpoints.
    pub fn build(self) -> Result<Routes, RoutesError> {
        let mut tree = matchit::Router::<ByMethod>::new();
        let mut names = std::collections::HashSet::new();
        for (index, endpoint) in self.endpoints.iter().enumerate() {
            if !names.insert(endpoint.name()) {
                return Err(RoutesError::DuplicateName { name: endpoint.name().to_owned() });
            }
            let id = u16::try_from(index).map(EndpointId).map_err(|_| RoutesError::TooMany)?;
            let slot = (endpoint.method().clone(), id);
            // Templates of one path differ only by method; the tree keeps one entry for all of them.
            let known = self.endpoints[..index].iter().any(|earlier| earlier.path() == endpoint.path());
            if known && let Some(entry) = entry(&mut tree, endpoint.path()) {
                entry.0.push(slot);
            } else {
                tree.insert(endpoint.path(), ByMethod(vec![slot])).map_err(|source| RoutesError::Template {
                    name: endpoint.name().to_owned(),
                    path: endpoint.path().to_owned(),
                    reason: source.to_string(),
                })?;
            }
        }
        Ok(Routes { endpoints: self.endpoints, tree })
    }
}

/// Looks a template up as if it were a path: a variable segment matches its own braces.
fn entry<'t>(tree: &'t mut matchit::Router<ByMethod>, template: &str) -> Option<&'t mut ByMethod> {
    tree.at_mut(template).ok().map(|found| found.value)
}

/// The endpoints that share one path: never more than a handful, so a scan beats a map.
#[derive(Clone, Debug)]
struct ByMethod(Vec<(Method, EndpointId)>);

impl ByMethod {
    fn get(&self, method: &Method) -> Option<EndpointId> {
        self.0.iter().find(|(known, _)| known == method).map(|(_, id)| *id)
    }
}

/// Why a table of endpoints cannot be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RoutesError {
    /// The path is not a usable template.
    #[error("endpoint {name:?}: path template {path:?} cannot be used: {reason}")]
    Template {
        /// The endpoint's name.
        name: String,
        /// The offending template.
        path: String,
        /// What the routing tree says.
        reason: String,
    },
    /// Two endpoints have one name.
    #[error("endpoint name {name:?} is used twice; names must be unique")]
    DuplicateName {
        /// The name.
        name: String,
    },
    /// More endpoints than an [`EndpointId`] can number.
    #[error("more than 65535 endpoints")]
    TooMany,
}
