//! Finding what is known about a request, by method and path.

use std::{
    collections::HashSet,
    sync::{Arc, LazyLock},
};

use http::Method;

use crate::Endpoint;

mod recent;
mod tree;

use recent::TableId;
use tree::{Tree, segments};

/// A table of endpoints that can be searched by method and path.
///
/// A look-up allocates nothing and costs tens of nanoseconds; asked for the same request again, as one layer after the
/// other does, a table remembers the answer. Where several templates match one path, a static segment
/// goes before a variable, and a variable before `{*rest}`; no two templates stand in each other's way.
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
///
/// A route of Didit's is changed by giving its method and path again, whatever its variables are called:
///
/// ```
/// use std::time::Duration;
/// use didit_api::{Endpoint, Routes};
/// use http::Method;
///
/// let patient = Endpoint::new("session-decision", Method::GET, "/v3/session/{session}/decision/")
///     .timeout(Duration::from_secs(40));
/// let routes = Routes::builder().endpoint(patient).build()?;
///
/// let id = routes.find(&Method::GET, "/v3/session/11111111-2222-4333-8444-555555555555/decision/");
/// let timeout = id.map(|id| routes.get(id).attempt_timeout());
/// assert_eq!(timeout, Some(Duration::from_secs(40)));
/// # Ok::<(), didit_api::routes::RoutesError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Routes {
    // NOTE: what was found under this id is remembered, so endpoints and tree never change after they were built.
    id: TableId,
    endpoints: Vec<Endpoint>,
    tree: Tree,
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

// ===== impl Routes =====

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
        Self { id: TableId::new(), endpoints: Vec::new(), tree: Tree::default() }
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
    ///
    /// The final slash counts, as it does at Didit: without it Didit answers 301, so a path that lacks it belongs to
    /// no route.
    pub fn find(&self, method: &Method, path: &str) -> Option<EndpointId> {
        self.id.recall(method, path, || self.tree.find(path.strip_prefix('/')?.as_bytes())?.get(method))
    }

    /// Finds the endpoint with this name.
    pub fn named(&self, name: &str) -> Option<EndpointId> {
        self.iter().find(|(_, endpoint)| endpoint.name() == name).map(|(id, _)| id)
    }

    /// The endpoint behind an id that this table gave out.
    ///
    /// An id of another table names something unrelated here; beyond the end it gives an endpoint called `unknown`
    /// that is never repeated, so that a mix-up of tables stops no call.
    pub fn get(&self, id: EndpointId) -> &Endpoint {
        self.endpoints.get(id.index()).unwrap_or(Endpoint::UNKNOWN)
    }

    /// All endpoints, in order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = (EndpointId, &Endpoint)> {
        (0..=u16::MAX).map(EndpointId).zip(&self.endpoints)
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

// ===== impl RoutesBuilder =====

impl RoutesBuilder {
    /// Adds an endpoint, or replaces the one with the same method and path.
    ///
    /// Two paths that differ only in what their variables are called are the same path.
    #[must_use]
    pub fn endpoint(mut self, endpoint: Endpoint) -> Self {
        let same = |known: &&mut Endpoint| known.method() == endpoint.method() && same_path(&endpoint, known);
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
    /// [`RoutesError`] if a path is not a template that a request can match, if a name is used twice, if an
    /// attempt timeout is zero, or if there are more than 65 536 endpoints.
    pub fn build(self) -> Result<Routes, RoutesError> {
        let mut names = HashSet::new();
        let mut tree = Tree::default();
        for (index, endpoint) in self.endpoints.iter().enumerate() {
            if !names.insert(endpoint.name()) {
                return Err(RoutesError::DuplicateName { name: endpoint.name().to_owned() });
            }
            if endpoint.attempt_timeout().is_zero() {
                return Err(RoutesError::Timeout { name: endpoint.name().to_owned() });
            }
            let id = u16::try_from(index).map(EndpointId).map_err(|_| RoutesError::TooMany)?;
            let segments = segments(endpoint.path()).map_err(|reason| RoutesError::Template {
                name: endpoint.name().to_owned(),
                path: endpoint.path().to_owned(),
                reason: reason.to_owned(),
            })?;
            tree.insert(&segments, endpoint.method().clone(), id);
        }
        Ok(Routes { id: TableId::new(), endpoints: self.endpoints, tree })
    }
}

/// Whether two templates match the same requests; what their variables are called makes no difference.
fn same_path(one: &Endpoint, other: &Endpoint) -> bool {
    one.path() == other.path() || segments(one.path()).is_ok_and(|one| Ok(one) == segments(other.path()))
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
        /// What is wrong with it.
        reason: String,
    },
    /// Two endpoints have one name.
    #[error("endpoint name {name:?} is used twice; names must be unique")]
    DuplicateName {
        /// The name.
        name: String,
    },
    /// An attempt timeout of zero: every attempt would be abandoned before it is answered.
    #[error("endpoint {name:?}: a timeout of 0 would abandon every attempt; the least is 1 ns")]
    Timeout {
        /// The endpoint's name.
        name: String,
    },
    /// More endpoints than an [`EndpointId`] can number.
    #[error("more than 65536 endpoints")]
    TooMany,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn own(name: &'static str, method: Method, path: &'static str) -> Endpoint {
        Endpoint::new(name, method, path)
    }

    fn name_of<'r>(routes: &'r Routes, method: &Method, path: &str) -> Option<&'r str> {
        routes.find(method, path).map(|id| routes.get(id).name())
    }

    #[test]
    fn variables_of_another_name_are_the_same_path() {
        let decide = own("decision-set", Method::POST, "/v3/session/{sid}/decision/");
        let routes = Routes::builder().endpoint(decide).build().unwrap();
        assert_eq!(name_of(&routes, &Method::POST, "/v3/session/s1/decision/"), Some("decision-set"));
        assert_eq!(name_of(&routes, &Method::GET, "/v3/session/s1/decision/"), Some("session-decision"));
        assert_eq!(routes.len(), Routes::didit().len() + 1);
    }

    #[test]
    fn same_method_and_path_replaces() {
        let mine = own("mine", Method::GET, "/v3/session/{whatever}/decision/");
        let routes = Routes::builder().endpoint(mine).build().unwrap();
        assert_eq!(name_of(&routes, &Method::GET, "/v3/session/s1/decision/"), Some("mine"));
        assert_eq!(routes.named("session-decision"), None);
        assert_eq!(routes.len(), Routes::didit().len());
    }

    #[test]
    fn unusable_templates_are_named_and_never_panic() {
        let deep = "/a".repeat(100_000);
        let bad = [
            "",
            "*",
            "v3/x/",
            "/{}",
            "/{*}",
            "/{",
            "/}",
            "/{a",
            "/{a/b}/",
            "/{a}{b}/",
            "/x{a}",
            "/{a}.json",
            "/{*rest}/x",
            "/{a*}",
            "/{{",
            "/{{x}}",
            "/{a{b}}",
            "/x?y=1",
            "/x#y",
            "/{**a}",
            "/{*a}/{*b}",
            &deep,
        ];
        for path in bad {
            let endpoint = Endpoint::new("bad", Method::GET, path.to_owned());
            match Routes::blank().endpoint(endpoint.clone()).endpoint(endpoint).build() {
                Err(RoutesError::Template { name, path: named, reason }) => {
                    assert_eq!((name.as_str(), named.as_str()), ("bad", path));
                    assert!(!reason.is_empty());
                }
                other => panic!("{path}: {other:?}"),
            }
        }
    }

    #[test]
    fn static_goes_before_variable_goes_before_rest() {
        let routes = Routes::blank()
            .endpoint(own("rest", Method::GET, "/a/{*rest}"))
            .endpoint(own("variable", Method::GET, "/a/{x}/end/"))
            .endpoint(own("static", Method::GET, "/a/b/end/"))
            .endpoint(own("static-only", Method::GET, "/a/b/other/"))
            .build()
            .unwrap();
        let table = [
            ("/a/b/end/", Some("static")),
            ("/a/c/end/", Some("variable")),
            ("/a/b/end", Some("rest")),
            ("/a/b/unknown/", Some("rest")),
            ("/a/c/other/", Some("rest")),
            ("/a/b", Some("rest")),
            ("/a//end/", Some("rest")),
            ("/a/", None),
            ("/a", None),
        ];
        for (path, name) in table {
            assert_eq!(name_of(&routes, &Method::GET, path), name, "{path}");
        }
    }

    #[test]
    fn a_name_is_used_once() {
        let error = Routes::builder().endpoint(own("aml", Method::POST, "/v3/own/")).build().unwrap_err();
        assert_eq!(error, RoutesError::DuplicateName { name: "aml".into() });
    }

    #[test]
    fn a_timeout_of_zero_is_refused() {
        let with = |timeout| Routes::blank().endpoint(own("mine", Method::GET, "/v3/own/").timeout(timeout)).build();
        assert_eq!(with(Duration::ZERO).unwrap_err(), RoutesError::Timeout { name: "mine".into() });
        assert!(with(Duration::from_nanos(1)).is_ok());
    }

    #[test]
    fn more_endpoints_than_ids_are_refused() {
        let mut builder = Routes::blank();
        builder.endpoints =
            (0..=65_536).map(|n| Endpoint::new(format!("n{n}"), Method::GET, format!("/{n}"))).collect();
        assert_eq!(builder.build().unwrap_err(), RoutesError::TooMany);
    }

    #[test]
    fn the_last_id_can_be_looked_up() {
        let mut builder = Routes::blank();
        builder.endpoints = (0..65_536).map(|n| Endpoint::new(format!("n{n}"), Method::GET, format!("/{n}"))).collect();
        let routes = builder.build().unwrap();
        assert_eq!(name_of(&routes, &Method::GET, "/65535"), Some("n65535"));
        assert_eq!(routes.iter().count(), 65_536);
    }

    #[test]
    fn an_id_of_a_larger_table_gives_a_careful_stand_in() {
        let foreign = Routes::didit().named("aml").unwrap();
        let routes = Routes::empty();
        let unknown = routes.get(foreign);
        assert_eq!((unknown.name(), unknown.retry_class()), ("unknown", crate::RetryClass::Unsafe));
    }

    #[test]
    fn what_was_asked_before_changes_no_answer() {
        let own = |name| Routes::blank().endpoint(Endpoint::new(name, Method::GET, "/a/{x}/")).build().unwrap();
        let (one, other) = (own("one"), Routes::empty());
        let long = format!("/a/{}/", "x".repeat(1_000));
        let deeper = format!("/a/{}/y/", "x".repeat(998));
        assert_eq!(long.len(), deeper.len());
        for _ in 0..2 {
            for path in ["/a/b/", "/a/c/", &long] {
                assert_eq!(name_of(&one, &Method::GET, path), Some("one"), "{path}");
                assert_eq!(name_of(&one.clone(), &Method::GET, path), Some("one"), "{path}");
                assert_eq!(name_of(&one, &Method::POST, path), None, "{path}");
                assert_eq!(name_of(&other, &Method::GET, path), None, "{path}");
                assert_eq!(name_of(&one, &Method::GET, &path[..path.len() - 1]), None, "{path}");
            }
            assert_eq!(name_of(&one, &Method::GET, &deeper), None);
        }
        // A table at the place of one that is gone.
        drop(other);
        assert_eq!(name_of(&own("two"), &Method::GET, "/a/b/"), Some("two"));
    }

    #[test]
    fn final_slash_is_part_of_the_route() {
        let routes = Routes::didit();
        assert_eq!(routes.find(&Method::GET, "/v3/sessions"), None);
        assert_eq!(routes.find(&Method::GET, "/v3/session/s1/webhook/w1/"), None);
        assert!(routes.find(&Method::GET, "/system/healthcheck").is_some());
        assert!(routes.find(&Method::GET, "/system/healthcheck/").is_some());
    }

    #[test]
    fn any_path_can_be_asked_for() {
        let routes = Routes::didit();
        for path in [
            "",
            "*",
            "/",
            "//",
            "/v3/session//decision/",
            "/v3/session/{id}",
            "/\u{1f600}/",
            "verification.didit.me:443",
        ] {
            assert_eq!(routes.find(&Method::GET, path), None, "{path}");
        }
    }
}
