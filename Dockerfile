# One static binary in an empty image.
#
#   docker build -t execlet .                                    builds everything in a container
#   docker build -t execlet --build-arg BINARY=prebuilt .        takes target/image/execlet as it is
#
# Both need BuildKit, which builds only the stages that are asked for.
ARG BINARY=build

FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
RUN make binary

FROM scratch AS prebuilt
COPY target/image/execlet /src/target/image/execlet

FROM ${BINARY} AS binary

FROM scratch
COPY --from=binary /src/target/image/execlet /execlet
# The manager needs no more. The agent's pod asks for root: the engine's socket belongs to it.
USER 65532:65532
ENTRYPOINT ["/execlet"]
