"""Server reflection, v1 and v1alpha: what tools ask to learn the services and messages spoken here.

Where keys are required, it asks for one: any will do.
"""

from collections.abc import AsyncIterator
from typing import Any, Final

from grpc import StatusCode

from modelyard.domain.errors.base import ModelyardError
from modelyard.inference.grpc.asked import Asked
from modelyard.inference.grpc.messages import POOL, SERVICES, message, parse
from modelyard.inference.grpc.rpc import refuse
from modelyard.inference.routing import Switchboard

NAMES: Final = tuple(name for name in SERVICES if name.startswith("grpc.reflection."))


class Reflection:
    """One version of the protocol; both have the same messages under their own package."""

    def __init__(self, name: str, board: Switchboard) -> None:
        package = name.rpartition(".")[0]
        self._board = board
        self._request = message(f"{package}.ServerReflectionRequest")
        self._response = message(f"{package}.ServerReflectionResponse")

    def methods(self) -> dict[str, Any]:
        """What answers each call."""
        return {"ServerReflectionInfo": self._info}

    async def _info(self, bodies: AsyncIterator[bytes], context: Any) -> None:  # noqa: ANN401  (of grpc)
        asked = Asked.of(context)
        try:
            self._board.keys.identify(asked.authorization)
            async for body in bodies:
                request = parse(self._request, body)
                answer = self._response(valid_host=request.host, original_request=request)
                self._fill(answer, request)
                await context.write(answer.SerializeToString())
        except ModelyardError as error:
            await refuse(context, error, asked)

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
                    _refuse(answer, StatusCode.NOT_FOUND, "there are no extensions")
                case _:
                    _refuse(answer, StatusCode.INVALID_ARGUMENT, "nothing was asked")
        except KeyError:
            _refuse(answer, StatusCode.NOT_FOUND, "no such symbol or file")


def _add(answer: Any, file: Any) -> None:  # noqa: ANN401  (of protobuf)
    answer.file_descriptor_response.file_descriptor_proto.append(file.serialized_pb)


def _refuse(answer: Any, status: Any, text: str) -> None:  # noqa: ANN401  (of protobuf and grpc)
    answer.error_response.error_code = status.value[0]
    answer.error_response.error_message = text
