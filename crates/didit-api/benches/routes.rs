//! What a look-up costs: `cargo bench -p didit-api`.

use std::sync::Arc;

use didit_api::Routes;
use divan::{Bencher, black_box};
use http::Method;

fn main() {
    divan::main();
}

const CASES: [(&str, &str, &str); 7] = [
    ("hit, static", "POST", "/v3/session/"),
    ("hit, static, of another group", "POST", "/v3/aml/"),
    ("hit, one variable", "GET", "/v3/session/11111111-2222-4333-8444-555555555555/decision/"),
    (
        "hit, two variables",
        "GET",
        "/v3/session/11111111-2222-4333-8444-555555555555/webhook/99999999-2222-4333-8444-555555555555",
    ),
    ("miss, first segment", "GET", "/v2/session/"),
    ("miss, final slash", "GET", "/v3/session/11111111-2222-4333-8444-555555555555/decision"),
    ("miss, method", "PUT", "/v3/session/"),
];

#[divan::bench(args = CASES.map(|(name, ..)| name))]
fn find(bencher: Bencher<'_, '_>, name: &str) {
    let routes: Arc<Routes> = Routes::didit();
    let Some((_, method, path)) = CASES.iter().find(|(known, ..)| *known == name) else { return };
    let Ok(method) = method.parse::<Method>() else { return };
    bencher.bench_local(|| black_box(&routes).find(black_box(&method), black_box(path)));
}
