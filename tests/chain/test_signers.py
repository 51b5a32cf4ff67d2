"""The signer outside: an HTTP server that speaks Clef's external API and signs with eth-account, honest or not."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from eth_account import Account
from eth_utils.crypto import keccak
from hexbytes import HexBytes

from chain.accounts import dev_account
from chain.client import ArenaClient
from chain.deployment import deploy
from chain.eip712 import Domain, ManifestMessage, full_message, recover, sign
from chain.errors import BadKey, NetworkUnavailable, SigningRefused
from chain.signers import ExternalSigner, find_signer
from chain.types import tokens

OWNER = dev_account(1)
SECRET = "only-for-me"
DOMAIN = Domain(chain_id=31_337, verifying_contract=dev_account(9).address)
MESSAGE = ManifestMessage(
    task_id=2**256 - 1,
    trainer=OWNER.address,
    spec_digest=b"\1" * 32,
    transcript_digest=b"\2" * 32,
    model_digest=b"\3" * 32,
    manifest_digest=bytes(32),
)

# The example of EIP-712 itself, and the signature that the standard and Clef's documentation give for it.
MAIL = {
    "types": {
        "EIP712Domain": [
            {"name": "name", "type": "string"},
            {"name": "version", "type": "string"},
            {"name": "chainId", "type": "uint256"},
            {"name": "verifyingContract", "type": "address"},
        ],
        "Person": [{"name": "name", "type": "string"}, {"name": "wallet", "type": "address"}],
        "Mail": [
            {"name": "from", "type": "Person"},
            {"name": "to", "type": "Person"},
            {"name": "contents", "type": "string"},
        ],
    },
    "primaryType": "Mail",
    "domain": {
        "name": "Ether Mail",
        "version": "1",
        "chainId": 1,
        "verifyingContract": "0xCcCCccccCCCCcCCCCCCcCcCccCcCCCcCcccccccC",
    },
    "message": {
        "from": {"name": "Cow", "wallet": "0xCD2a3d9F938E13CD947Ec05AbC7FE734Df8DD826"},
        "to": {"name": "Bob", "wallet": "0xbBbBBBBbbBBBbbbBbbBbbbbBBbBbbbbBbBbbBBbB"},
        "contents": "Hello, Bob!",
    },
}
MAIL_SIGNATURE = (
    "0x4355c47d63924e8a72e509b65029052eb6c299d53a04e167c5775fd466751c9d"
    "07299936d304c153f6443dfa05f40ff007d72911b6f72307f996231605b915621c"
)


def clef(account):
    """Clef's answers for one account whose owner approves everything."""

    def answer(method, params):
        if method == "account_signTypedData":
            address, message = params
            assert address == account.address
            return account.sign_typed_data(full_message=message).signature.to_0x_hex()
        assert method == "account_signTransaction"
        (request,) = params
        numbers = {name: int(text, 16) for name, text in request.items() if name not in ("from", "to", "input")}
        transaction = numbers | {"to": request.get("to", b""), "data": request["input"]}
        signed = account.sign_transaction(transaction)
        return {"raw": signed.raw_transaction.to_0x_hex(), "tx": {"hash": signed.hash.to_0x_hex()}}

    return answer


@contextmanager
def signer(answer, address=OWNER.address):
    """An :class:`ExternalSigner` whose other side gives ``answer(method, params)``; an exception is a refusal."""

    class Side(BaseHTTPRequestHandler):
        def do_POST(self):
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            try:
                said = {"result": answer(asked["method"], asked["params"])}
            except PermissionError as error:
                said = {"error": {"code": -32000, "message": str(error)}}
            body = json.dumps({"jsonrpc": "2.0", "id": asked["id"]} | said).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Side) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield ExternalSigner(f"http://127.0.0.1:{server.server_port}/{SECRET}", address)
        server.shutdown()


class TestHonest:
    def test_a_client_acts_through_it(self, world):
        with signer(clef(OWNER)) as outside:
            client = ArenaClient(world.chain.web3, world.deployment, outside)
            receipt = client.token.transfer(world.creator.address, 3)
        assert receipt.event("Transfer").args["from"] == OWNER.address

    def test_contracts_are_deployed_through_it(self, world):
        with signer(clef(dev_account(0)), dev_account(0).address) as outside, world.wound_back():
            deployment = deploy(world.chain.web3, outside, tokens(1))
            ArenaClient(world.chain.web3, deployment)

    def test_a_proof_is_signed_as_by_the_key_itself(self):
        with signer(clef(OWNER)) as outside:
            signature = sign(outside, DOMAIN, MESSAGE)
        assert signature == sign(OWNER, DOMAIN, MESSAGE)
        assert recover(signature, DOMAIN, MESSAGE) == OWNER.address

    def test_the_message_survives_json(self):
        message = full_message(DOMAIN, MESSAGE)
        assert json.loads(json.dumps(message)) == message

    def test_the_standards_own_example(self):
        cow = Account.from_key(keccak(text="cow"))
        with signer(lambda method, params: MAIL_SIGNATURE, cow.address.lower()) as outside:
            signed = outside.sign_typed_data(full_message=MAIL)
        assert signed == cow.sign_typed_data(full_message=MAIL)


def changed(**changes):
    """A signer whose owner approves, but with ``changes`` to the transaction."""
    return lambda method, params: clef(OWNER)(method, [params[0] | changes])


BAD_ANSWERS = [
    None, 7, [], {}, "0x", "raw", {"raw": None}, {"raw": "zz"}, {"raw": "0x"}, {"raw": "0x02c0"}, {"raw": "0xf8"},
    {"raw": "0x02" + "f8" * 40}, {"raw": "0x05c0"},
]  # fmt: skip


class TestDishonest:
    @pytest.mark.parametrize(
        "answer",
        [
            changed(gas="0x5208"),
            changed(maxFeePerGas="0xffffffffff"),
            changed(value="0x1"),
            changed(to=dev_account(3).address),
            changed(input="0x"),
            changed(nonce="0xff"),
            changed(chainId="0x1"),
            clef(dev_account(2)),
        ],
        ids=["gas", "fee", "value", "to", "data", "nonce", "chain", "account"],
    )
    def test_another_transaction_is_not_sent(self, world, answer):
        count = world.chain.web3.eth.get_transaction_count
        before = count(OWNER.address), count(dev_account(2).address)
        with signer(answer) as outside:
            client = ArenaClient(world.chain.web3, world.deployment, outside)
            with pytest.raises(SigningRefused, match="another transaction"):
                client.token.transfer(world.creator.address, 3)
        assert (count(OWNER.address), count(dev_account(2).address)) == before

    @pytest.mark.parametrize("answer", BAD_ANSWERS, ids=str)
    def test_what_is_no_transaction_is_named(self, world, answer):
        with signer(lambda method, params: answer) as outside:
            client = ArenaClient(world.chain.web3, world.deployment, outside)
            with pytest.raises(SigningRefused, match="no signed transaction"):
                client.token.transfer(world.creator.address, 3)

    @pytest.mark.parametrize("answer", [*BAD_ANSWERS, "0x" + "00" * 65, "0x" + "ff" * 65, "0x" + "11" * 64], ids=str)
    def test_what_is_no_signature_is_named(self, answer):
        with signer(lambda method, params: answer) as outside, pytest.raises(SigningRefused, match="no signature"):
            outside.sign_typed_data(full_message=full_message(DOMAIN, MESSAGE))

    def test_another_message_is_refused(self):
        other = OWNER.sign_typed_data(full_message=MAIL).signature.to_0x_hex()
        with signer(lambda method, params: other) as outside, pytest.raises(SigningRefused, match="another message"):
            sign(outside, DOMAIN, MESSAGE)

    def test_an_owner_who_declines(self, world):
        def decline(method, params):
            raise PermissionError("Request denied")

        with signer(decline) as outside:
            client = ArenaClient(world.chain.web3, world.deployment, outside)
            with pytest.raises(SigningRefused, match="Request denied"):
                client.token.transfer(world.creator.address, 3)

    def test_a_transaction_of_the_old_kind_is_not_asked_for(self):
        with signer(clef(OWNER)) as outside, pytest.raises(SigningRefused, match="EIP-1559"):
            outside.sign_transaction({"nonce": 0, "gas": 1, "gasPrice": 1, "value": 0, "chainId": 1, "data": "0x"})

    def test_silence_is_named_without_the_address(self):
        with signer(clef(OWNER)) as outside:
            pass
        with pytest.raises(NetworkUnavailable, match="signer did not answer") as caught:
            sign(outside, DOMAIN, MESSAGE)
        assert SECRET not in str(caught.value)


class TestNames:
    def test_every_kind(self, tmp_path, monkeypatch):
        monkeypatch.setenv("MY_KEY", HexBytes(OWNER.key).hex())
        path = tmp_path / "key.json"
        path.write_text(json.dumps(Account.encrypt(OWNER.key, "secret", kdf="pbkdf2", iterations=1)))
        names = [str(path), "env:MY_KEY", "dev:1", f"clef:{OWNER.address}@http://127.0.0.1:8550"]
        for name in names:
            assert find_signer(name, lambda: "secret").address == OWNER.address

    @pytest.mark.parametrize(
        "name",
        ["", "env:", "env:NOT_SET", "dev:", "nowhere.json", "clef:", "clef:0x12@http://a", "clef:" + "0x" + "1" * 40,
         f"clef:0x{OWNER.address[2:].swapcase()}@http://a", f"clef:{OWNER.address}@/tmp/clef.ipc"],
    )  # fmt: skip
    def test_anything_else_is_refused(self, name, monkeypatch, tmp_path):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(BadKey):
            find_signer(name, lambda: "secret")
