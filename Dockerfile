# Builds with and without BuildKit: nothing below needs it.
#
#   docker build -t twinlite .
#   docker build -t twinlite --build-arg BUILD_IMAGE=… --build-arg RUNTIME_IMAGE=… .
ARG BUILD_IMAGE=rust:1-bookworm
ARG RUNTIME_IMAGE=debian:bookworm-slim

FROM ${BUILD_IMAGE} AS build
# `release`, or `quick` for a faster build of a slower program.
ARG PROFILE=release
WORKDIR /build

# The dependencies first, so that a change of ours does not build them again.
COPY Cargo.toml Cargo.lock ./
RUN mkdir -p src tests/it benches/budgets \
 && echo 'fn main() {}' > src/main.rs && touch src/lib.rs \
 && echo 'fn main() {}' > tests/it/main.rs && echo 'fn main() {}' > benches/budgets/main.rs \
 && cargo build --locked --profile "$PROFILE" --bin twinlite

COPY build.rs ./
COPY proto proto
COPY src src
# Cargo goes by time, and what was copied may be older than what stood in for it.
RUN touch build.rs src/main.rs src/lib.rs \
 && cargo build --locked --profile "$PROFILE" --bin twinlite \
 && install -D "target/$(echo "$PROFILE" | sed s/dev/debug/)/twinlite" /out/twinlite

FROM ${RUNTIME_IMAGE}
# An application that shares the volume runs as the same user or group: SQLite's files are its owner's and its group's.
RUN groupadd --gid 10001 twinlite \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /data --shell /usr/sbin/nologin twinlite \
 && mkdir /data /etc/twinlite && chown 10001:10001 /data && chmod 2770 /data
COPY --from=build /out/twinlite /usr/local/bin/twinlite
USER 10001:10001
WORKDIR /data
VOLUME /data
# The configuration is mounted at this path; see docker-compose.yml.
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
  CMD ["twinlite", "status", "--config", "/etc/twinlite/node.yaml"]
ENTRYPOINT ["twinlite"]
CMD ["run", "--config", "/etc/twinlite/node.yaml"]
