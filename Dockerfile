# The image of genesys-auth-proxy: `docker build -t genesys-auth-proxy .`
# docker run -p 127.0.0.1:8080:8080 -v "$PWD:/etc/genesys-auth-proxy:ro" genesys-auth-proxy
# runs it with genesys-auth-proxy.toml of this folder, where listen.host = "0.0.0.0" and access.caller_keys or
# access.open is set: in the container, 127.0.0.1 is the container's own.

FROM python:3.11-slim AS build
# What is installed; requirements-traces.lock has OpenTelemetry as well, which makes the image larger.
ARG LOCK=requirements.lock
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
COPY requirements.lock requirements-traces.lock requirements-build.lock ./
RUN pip install --require-hashes --only-binary :all: -r requirements-build.lock
RUN python -m venv --without-pip /opt/genesys-auth-proxy
RUN pip --python /opt/genesys-auth-proxy install --require-hashes --only-binary :all: -r $LOCK
COPY pyproject.toml README.md LICENSE ./
COPY proxy proxy
RUN pip wheel --no-deps --no-build-isolation --wheel-dir dist .
RUN pip --python /opt/genesys-auth-proxy install --no-deps --no-index dist/*.whl

FROM python:3.11-slim
LABEL org.opencontainers.image.title="genesys-auth-proxy" \
      org.opencontainers.image.description="A local reverse proxy that keeps Genesys Cloud OAuth tokens fresh" \
      org.opencontainers.image.licenses="MIT"
RUN pip uninstall --yes --root-user-action=ignore setuptools wheel pip \
 && install -d -o 65532 -g 65532 /var/lib/genesys-auth-proxy
COPY --from=build /opt/genesys-auth-proxy /opt/genesys-auth-proxy
ENV PATH=/opt/genesys-auth-proxy/bin:$PATH \
    STATE_DIRECTORY=/var/lib/genesys-auth-proxy \
    PYTHONUNBUFFERED=1 \
    GENESYS_AUTH_PROXY_CONFIG=/etc/genesys-auth-proxy/genesys-auth-proxy.toml
# The one place that the user may write to.
WORKDIR /var/lib/genesys-auth-proxy
VOLUME ["/var/lib/genesys-auth-proxy"]
# A number, so that Kubernetes' runAsNonRoot can tell that it isn't root.
USER 65532:65532
EXPOSE 8080 8081
HEALTHCHECK --interval=10s --timeout=5s --start-period=15s --retries=3 CMD ["genesys-auth-proxy", "health"]
ENTRYPOINT ["genesys-auth-proxy"]
CMD ["run"]
