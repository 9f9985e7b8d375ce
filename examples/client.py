"""Asks `protoseg serve` for the labels of an image: python3 client.py http://127.0.0.1:8000 PHOTO.jpg

Needs nothing but Python. The second request is the Open Inference Protocol with the image file as it is.
"""

import json
import sys
from urllib.request import Request, urlopen


def post(url, body, headers):
    with urlopen(Request(url, data=body, headers=headers, method="POST")) as response:
        return response.headers, response.read()


def main(server, photo):
    with open(photo, "rb") as file:
        image = file.read()

    _, body = post(f"{server}/v1/segment", image, {})
    for name, share in sorted(shares(json.loads(body)).items(), key=lambda entry: -entry[1]):
        print(f"{name:16} {100 * share:5.1f} %")

    with urlopen(f"{server}/v1/models") as response:
        model = json.load(response)["models"][0]["name"]
    # Binary tensors follow the JSON, each element of BYTES behind its length.
    tensor = len(image).to_bytes(4, "little") + image
    head = json.dumps({
        "inputs": [{"name": "image", "shape": [1], "datatype": "BYTES",
                    "parameters": {"binary_data_size": len(tensor)}}],
        "outputs": [{"name": "labels", "parameters": {"binary_data": True}}],
    }).encode()
    headers = {"Inference-Header-Content-Length": str(len(head)), "Content-Type": "application/octet-stream"}
    found, body = post(f"{server}/v2/models/{model}.encoded/infer", head + tensor, headers)
    length = int(found["Inference-Header-Content-Length"])
    output = json.loads(body[:length])["outputs"][0]
    _, height, width = output["shape"]
    labels = body[length:]
    print(f"{height}x{width} labels; the pixel in row 7, column 3 is {labels[7 * width + 3]}")


def shares(answer):
    return {entry["name"]: entry["share"] for entry in answer["classes"]}


if __name__ == "__main__":
    main(*sys.argv[1:])
