//! Writes the client and the server of the gRPC service.
//!
//! A project with a `.proto` file calls `tonic_prost_build::compile_protos` here instead; what comes out is the same.

use tonic_build::manual::{Builder, Method, Service};

fn main() {
    println!("cargo::rerun-if-changed=tonic_service/build.rs");
    let method = |name: &str, route: &str, input: &str, output: &str| {
        Method::builder()
            .name(name)
            .route_name(route)
            .input_type(format!("crate::messages::{input}"))
            .output_type(format!("crate::messages::{output}"))
            .codec_path("tonic_prost::ProstCodec")
            .build()
    };
    let service = Service::builder()
        .package("demo.verification.v1")
        .name("Verifications")
        .comment("Verifies who a user is.")
        .method(method("start", "Start", "StartRequest", "Verification"))
        .method(method("read", "Read", "ReadRequest", "Verification"))
        .build();
    Builder::new().compile(&[service]);
}
