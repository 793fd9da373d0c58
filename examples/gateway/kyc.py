"""A user's KYC through the gateway: no key, no repetitions and no rate limits in here."""
import os, requests

gateway = os.environ.get("GATEWAY", "http://127.0.0.1:8080")
user, image = {"vendor_data": "user-7"}, ("image.jpg", b"\xff\xd8\xff\xe0 a picture", "image/jpeg")

def ask(path, **request):
    answer = requests.post(gateway + path, headers={"x-correlation-id": "journey-7"}, timeout=130, **request)
    answer.raise_for_status()
    return answer.json()

document = ask("/v3/id-verification/", data=user, files={"front_image": image})
liveness = ask("/v3/passive-liveness/", data=user, files={"user_image": image})
aml = ask("/v3/aml/", json={"full_name": "Ada Lovelace", **user})
session = ask("/v3/session/", json={"workflow_id": "99999999-2222-4333-8444-555555555555", **user})
print(document["id_verification"]["status"], liveness["request_id"], aml["aml"]["status"], session["status"], sep="\n")
