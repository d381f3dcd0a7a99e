"""Server reflection, v1 and v1alpha: what tools ask to learn the services and messages spoken here.

Where keys are required, it asks for one: any will do.
"""

from typing import Any

from modelyard.domain.errors.base import ModelyardError
from modelyard.foundation.http2 import Status, StreamCall
from modelyard.inference.grpc.asked import asked_of
from modelyard.inference.grpc.messages import POOL, message, parse
from modelyard.inference.grpc.names import SERVICES
from modelyard.inference.grpc.statuses import refuse
from modelyard.inference.routing import Switchboard


class Reflection:
    """One version of the protocol; both have the same messages under their own package."""

    def __init__(self, name: str, board: Switchboard) -> None:
        package = name.rpartition(".")[0]
        self._board = board
        self._request = message(f"{package}.ServerReflectionRequest")
        self._response = message(f"{package}.ServerReflectionResponse")

    def info(self, rpc: StreamCall) -> None:
        """Answer one stream of questions, each as it comes; who does not take the answers is not read on."""
        asked = asked_of(rpc.head)

        def answer(body: bytes) -> None:
            try:
                request = parse(self._request, body)
            except ModelyardError as error:
                refuse(rpc, error, request_id=asked.request_id())
                return
            found = self._response(valid_host=request.host, original_request=request)
            self._fill(found, request)
            rpc.send(found.SerializeToString())
            if rpc.backlog:
                rpc.hold()

        try:
            self._board.keys.identify(asked.authorization)
        except ModelyardError as error:
            refuse(rpc, error, request_id=asked.request_id())
            return
        rpc.listen(answer, rpc.finish, room=rpc.go_on)

    def _fill(self, answer: Any, request: Any) -> None:  # noqa: ANN401  (of protobuf)
        try:
            match request.WhichOneof("message_request"):
                case "list_services":
                    for name in SERVICES:
                        answer.list_services_response.service.add(name=name)
                case "file_containing_symbol":
                    _add(answer, POOL.FindFileContainingSymbol(request.file_containing_symbol))
                case "file_by_filename":
                    _add(answer, POOL.FindFileByName(request.file_by_filename))
                case "all_extension_numbers_of_type":
                    kind = POOL.FindMessageTypeByName(request.all_extension_numbers_of_type)
                    answer.all_extension_numbers_response.base_type_name = kind.full_name
                case "file_containing_extension":
                    _refuse(answer, Status.NOT_FOUND, "there are no extensions")
                case _:
                    _refuse(answer, Status.INVALID_ARGUMENT, "nothing was asked")
        except KeyError:
            _refuse(answer, Status.NOT_FOUND, "no such symbol or file")


def _add(answer: Any, file: Any) -> None:  # noqa: ANN401  (of protobuf)
    answer.file_descriptor_response.file_descriptor_proto.append(file.serialized_pb)


def _refuse(answer: Any, status: Status, text: str) -> None:  # noqa: ANN401  (of protobuf)
    answer.error_response.error_code = int(status)
    answer.error_response.error_message = text
