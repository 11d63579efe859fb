# aln-registry as an image of one static program, run as nobody in particular, on a root file
# system that may be read-only. docs/OPERATIONS.md says how it is run.
FROM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=dev
RUN CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=$VERSION" -o /root-fs/usr/local/bin/aln-registry ./cmd/aln-registry
# What the program needs beside itself: whom to trust, and a folder for uploads under way.
RUN install -d -m 1777 /root-fs/tmp && install -d -m 700 -o 65532 -g 65532 /root-fs/data && install -D -m 644 /etc/ssl/certs/ca-certificates.crt /root-fs/etc/ssl/certs/ca-certificates.crt

FROM scratch
COPY --from=build /root-fs/ /
USER 65532:65532
ENV PATH=/usr/local/bin ALN_HOME=/data/operator ALN_LISTEN=0.0.0.0:8585 ALN_METRICS_LISTEN=0.0.0.0:9585
EXPOSE 8585 9585
HEALTHCHECK --interval=5s --timeout=6s --start-period=45s --retries=3 CMD ["/usr/local/bin/aln-registry", "doctor", "--ready", "http://127.0.0.1:9585"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/aln-registry"]
CMD ["serve"]
