# One static binary in an empty image, for amd64 or arm64.
#
#   docker build -t execlet .                                    builds everything in a container
#   docker build -t execlet --build-arg BINARY=prebuilt .        takes target/image/execlet as it is
#   docker build -t execlet --platform linux/arm64 ...           the same for arm64; takes target/image/arm64/execlet
#
# All need BuildKit, which builds only the stages that are asked for. The binary is cross-built: nothing is emulated.
ARG BINARY=build

FROM --platform=$BUILDPLATFORM rust:1.95-bookworm AS build
ARG TARGETARCH
WORKDIR /src
COPY . .
RUN make binary ARCH=$TARGETARCH && if [ $TARGETARCH != amd64 ]; then cp target/image/$TARGETARCH/execlet target/image/; fi

FROM scratch AS prebuilt-amd64
COPY target/image/execlet /src/target/image/execlet

FROM scratch AS prebuilt-arm64
COPY target/image/arm64/execlet /src/target/image/execlet

FROM prebuilt-${TARGETARCH} AS prebuilt

FROM ${BINARY} AS binary

FROM scratch
COPY --from=binary /src/target/image/execlet /execlet
# The manager needs no more. The agent's pod asks for root: the engine's socket belongs to it.
USER 65532:65532
ENTRYPOINT ["/execlet"]
