"""Other people's clients get from `protoseg serve` the labels of `protoseg label`.

Triton's over HTTP with JSON, over HTTP with bytes and over gRPC; KServe's over HTTP and gRPC; and one that knows of the
service what gRPC's reflection tells it. Each runs in a process of its own (`python test_oip_clients.py CLIENT …`), as their
descriptions of the protocol cannot be loaded side by side.
"""

import asyncio
import subprocess
import sys
import threading
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

MODEL = "model"
ENCODED = MODEL + ".encoded"
SERVICE = "inference.GRPCInferenceService"


def pixels(files):
    return np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])


def elements(files):
    return np.array([file.read_bytes() for file in files], dtype=object)


def start(program, bundle):
    """Starts the server; returns it and its addresses once it is ready."""
    options = ["--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0"]
    server = subprocess.Popen(
        [program, "serve", f"{MODEL}={bundle}", *options], stderr=subprocess.PIPE, text=True
    )
    found = {}
    for line in server.stderr:
        for scheme in ("http", "grpc"):
            if f"listening on {scheme}://" in line:
                found[scheme] = line.split("://")[1].split()[0]
        if line.endswith(" ready\n"):
            break
    else:
        raise AssertionError("the server did not become ready")
    threading.Thread(target=server.stderr.read, daemon=True).start()
    return server, found["http"], found["grpc"]


def described(channel):
    """The descriptions that the server gives of its services."""
    from google.protobuf.descriptor_pool import DescriptorPool
    from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

    database = ProtoReflectionDescriptorDatabase(channel)
    return list(database.get_services()), DescriptorPool(database)


def fields(message, prefix=""):
    """Every field of a message and of those in it: number, type, whether there are many of it."""
    found = {}
    for field in message.fields:
        name = f"{prefix}{field.name}"
        found[name] = (field.number, field.type, field.is_repeated)
        if field.message_type is not None and not field.message_type.GetOptions().map_entry:
            found.update(fields(field.message_type, f"{name}."))
    return found


def same_wire(grpc, theirs):
    """What the server describes is in the client's description of the protocol, with the same numbers and types."""
    from grpc import insecure_channel

    with insecure_channel(grpc) as channel:
        _, pool = described(channel)
        ours = pool.FindServiceByName(SERVICE)
        for method in ours.methods:
            other = theirs.methods_by_name[method.name]
            for one, two in ((method.input_type, other.input_type), (method.output_type, other.output_type)):
                one, two = fields(one), fields(two)
                wrong = {name: (found, two.get(name)) for name, found in one.items() if found != two.get(name)}
                assert not wrong, f"{method.name}: {wrong}"


def triton(http, grpc, files):
    import tritonclient.grpc
    import tritonclient.http

    same_wire(grpc, tritonclient.grpc.service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"])
    clients = {
        "HTTP": (tritonclient.http, tritonclient.http.InferenceServerClient(http, concurrency=2)),
        "gRPC": (tritonclient.grpc, tritonclient.grpc.InferenceServerClient(grpc)),
    }
    answers = {}
    for protocol, (module, client) in clients.items():
        assert client.is_server_live() and client.is_server_ready() and client.is_model_ready(MODEL)
        as_json = {"as_json": True} if protocol == "gRPC" else {}
        server, model = client.get_server_metadata(**as_json), client.get_model_metadata(MODEL, **as_json)
        assert server["name"] == "protoseg" and "binary_tensor_data" in server["extensions"], server
        assert [output["name"] for output in model["outputs"]] == ["labels", "confidence"], model
        assert model["inputs"][0]["datatype"] == "UINT8", model
        index = client.get_model_repository_index(**as_json)
        index = index["models"] if protocol == "gRPC" else index
        assert [(entry["name"], entry["state"]) for entry in index] == [(MODEL, "READY")], index
        ways = [{"binary_data": False}, {"binary_data": True}] if protocol == "HTTP" else [{}]
        for way in ways:
            batch = pixels(files)
            tensor = module.InferInput("image", list(batch.shape), "UINT8")
            tensor.set_data_from_numpy(batch, **way)
            files_tensor = module.InferInput("image", [len(files)], "BYTES")
            # In JSON there are no bytes: clients write them as text, which image files are not.
            files_tensor.set_data_from_numpy(elements(files))
            outputs = [module.InferRequestedOutput(name, **way) for name in ("labels", "confidence")]
            name = " ".join([protocol, *("bytes" if given else "JSON" for given in way.values())])
            plain = client.infer(MODEL, [tensor], outputs=outputs, request_id="7")
            answers[name] = plain.as_numpy("labels")
            assert plain.as_numpy("confidence").dtype == np.uint8
            encoded = client.infer(ENCODED, [files_tensor], outputs=outputs)
            answers[f"{name}, encoded"] = encoded.as_numpy("labels")
            answers[f"{name}, later"] = later(protocol, client, tensor, outputs)
        for refused in (("gone", [tensor]), (MODEL, [files_tensor])):
            try:
                client.infer(*refused)
            except tritonclient.http.InferenceServerException as error:
                assert len(error.message()) > 20, error
            else:
                raise AssertionError(f"{refused[0]} was answered")
    return answers


def later(protocol, client, tensor, outputs):
    """By the call that does not wait."""
    if protocol == "HTTP":
        return client.async_infer(MODEL, [tensor], outputs=outputs).get_result().as_numpy("labels")
    done, found = threading.Event(), []

    def called(result, error):
        found.extend([result, error])
        done.set()

    client.async_infer(MODEL, [tensor], called, outputs=outputs)
    assert done.wait(60) and found[1] is None, found
    return found[0].as_numpy("labels")


def kserve(http, grpc, files):
    from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig

    def request(binary):
        batch = pixels(files)
        tensor = InferInput("image", list(batch.shape), "UINT8")
        tensor.set_data_from_numpy(batch, binary_data=binary)
        return InferRequest(MODEL, [tensor])

    async def ask():
        answers = {}
        async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:
            url = f"http://{http}"
            assert await client.is_server_live(url) and await client.is_server_ready(url)
            assert await client.is_model_ready(url, MODEL)
            for name, binary in (("HTTP JSON", False), ("HTTP bytes", True)):
                answers[name] = await client.infer(url, request(binary), model_name=MODEL)
        async with InferenceGRPCClient(grpc) as client:
            assert await client.is_server_live() and await client.is_server_ready()
            assert await client.is_model_ready(MODEL)
            for name, binary in (("gRPC typed", False), ("gRPC raw", True)):
                answers[name] = await client.infer(request(binary))
        return answers

    def labels(answer):
        output = next(output for output in answer.outputs if output.name == "labels")
        return np.asarray(output.as_numpy())

    return {name: labels(answer) for name, answer in asyncio.run(ask()).items()}


def reflection(_, grpc, files):
    from google.protobuf.message_factory import GetMessageClass
    from grpc import insecure_channel
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    with insecure_channel(grpc) as channel:
        services, pool = described(channel)
        assert SERVICE in services and "grpc.health.v1.Health" in services, services
        method = pool.FindServiceByName(SERVICE).methods_by_name["ModelInfer"]
        message, answer = GetMessageClass(method.input_type), GetMessageClass(method.output_type)
        batch = pixels(files)
        request = message(model_name=MODEL, raw_input_contents=[batch.tobytes()])
        request.inputs.add(name="image", datatype="UINT8", shape=batch.shape)
        request.outputs.add(name="labels")
        call = channel.unary_unary(
            f"/{SERVICE}/ModelInfer",
            request_serializer=message.SerializeToString,
            response_deserializer=answer.FromString,
        )
        found = call(request)
        health = health_pb2_grpc.HealthStub(channel)
        for name in ("", SERVICE, MODEL):
            status = health.Check(health_pb2.HealthCheckRequest(service=name)).status
            assert status == health_pb2.HealthCheckResponse.SERVING, name
    labels = np.frombuffer(found.raw_output_contents[0], np.uint8)
    return {"gRPC raw": labels.reshape(list(found.outputs[0].shape))}


CLIENTS = {"tritonclient": triton, "kserve": kserve, "grpcio-reflection": reflection}


@pytest.fixture(scope="module")
def labeled(protoseg, bundle, synthetic, tmp_path_factory):
    """Folders of the images and of their labels."""
    images, out = synthetic(3, "192x320"), tmp_path_factory.mktemp("labels")
    subprocess.run([protoseg, "label", bundle, images, "--out", out, "--format", "ids"], check=True)
    return images, out


@pytest.fixture(scope="module")
def addresses(protoseg, bundle):
    server, http, grpc = start(protoseg, bundle)
    yield http, grpc
    server.terminate()
    status = server.wait(60)
    assert status == 0, f"the server ended with status {status}"


@pytest.mark.parametrize("client", CLIENTS)
def test_labels_equal_those_of_protoseg_label(client, addresses, labeled):
    subprocess.run([sys.executable, __file__, client, *addresses, *labeled], check=True)


def compare(client, http, grpc, images, out):
    files = sorted(Path(images).glob("*.png"))
    assert files, f"{images} holds no PNG files"
    expected = np.stack([np.asarray(Image.open(Path(out) / "ids" / file.name)) for file in files])
    for way, labels in CLIENTS[client](http, grpc, files).items():
        assert labels.dtype == np.uint8 and labels.shape == expected.shape, (way, labels.dtype, labels.shape)
        assert np.array_equal(labels, expected), f"{client}, {way}: {(labels != expected).sum()} labels differ"
        print(f"{client} {version(client)}, {way}: {labels.size} labels equal those of `protoseg label`")


if __name__ == "__main__":
    compare(*sys.argv[1:])
