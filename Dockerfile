# onnxptq for the CPU, in a container that may be read-only: docs/check.md, "In a container".
FROM python:3.12-slim
COPY . /source
RUN pip install --no-cache-dir /source && rm -rf /source && useradd --create-home onnxptq
USER onnxptq
WORKDIR /work
ENTRYPOINT ["onnxptq"]
