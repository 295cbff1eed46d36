# The program with ONNX Runtime, models and configuration, for `docker compose up` and for production.
# It holds no broker and no database. Targets: `runtime` (the last, and the default) and `texts` (the demo's
# texts beside it, to send them).

FROM rust:1.95-bookworm AS build
# librdkafka is configured with it.
RUN apt-get update && apt-get install -y --no-install-recommends cmake && rm -rf /var/lib/apt/lists/*
WORKDIR /build
COPY . .
# The library from the same wheel as everywhere else, verified by the same lock file.
RUN bash -c 'source config/local/lib/common.sh && source config/local/lib/packages.sh \
    && install_package onnxruntime /opt/onnxruntime \
    && install_package texts /opt/texts-source \
    && config/local/demo/texts /opt/texts-source /opt/texts'
# Without the crash points of the delivery tests. The cache mounts keep a second build short.
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/build/target \
    SQLX_OFFLINE=true cargo build --release --locked --no-default-features \
    && cp target/release/albertine /opt/albertine

FROM debian:bookworm-slim AS base
# ONNX Runtime is C++; the certificates are for TLS to Kafka and Postgres.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates libstdc++6 \
    && rm -rf /var/lib/apt/lists/*
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin albertine
COPY --from=build /opt/onnxruntime/libonnxruntime.so /opt/onnxruntime/
COPY --from=build /opt/albertine /usr/local/bin/albertine
# Paths of models in a configuration are relative to this folder.
WORKDIR /opt/albertine
COPY models/ models/
COPY config/ config/
ENV ORT_DYLIB_PATH=/opt/onnxruntime/libonnxruntime.so
USER 10001
ENTRYPOINT ["albertine"]
CMD ["run"]

FROM base AS texts
COPY --from=build /opt/texts/ texts/

FROM base AS runtime
