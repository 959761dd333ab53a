# An image that serves a model over HTTP, and runs every other command too: docs/install.md.
FROM python:3.11-slim AS build
# Extras of convmixer. The default serves ONNX files, without torch; serve,onnx trains and exports too.
ARG EXTRAS=serve,onnxruntime
# The build of torch where an extra brings it: cpu, or cu130 for GPUs of NVIDIA.
ARG TORCH_BACKEND=cpu
ENV VIRTUAL_ENV=/opt/convmixer UV_PYTHON_DOWNLOADS=never
WORKDIR /source
RUN pip install --no-cache-dir uv==0.13.9
COPY pyproject.toml constraints.txt README.md LICENSE NOTICE ./
COPY src src
RUN uv venv "$VIRTUAL_ENV" \
    && uv pip install --no-cache --torch-backend "$TORCH_BACKEND" -c constraints.txt ".[$EXTRAS]"

FROM python:3.11-slim
COPY --from=build /opt/convmixer /opt/convmixer
# USER: torch asks for a name, which a number given by `docker run --user` has not.
ENV PATH=/opt/convmixer/bin:$PATH USER=convmixer
RUN useradd --uid 1000 --create-home --home-dir /work convmixer
USER 1000
WORKDIR /work
EXPOSE 8000
HEALTHCHECK --start-period=60s CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=5)"]
ENTRYPOINT ["convmixer"]
CMD ["serve", "/model", "--host", "0.0.0.0", "--port", "8000"]
