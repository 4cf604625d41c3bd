"""QuestionService: pass a question on to the agent of another node. What may be asked is that agent's to say."""

from __future__ import annotations

import grpc

from weft.admin.questions import QuestionAPI
from weft.admin.v1 import questions_pb2 as pb
from weft.admin.v1 import questions_pb2_grpc as pb_grpc
from weft.model.errors import FieldError, ValidationError
from weft.model.keys import Addressee


class QuestionServer(pb_grpc.QuestionServiceServicer):
    """Serves `questions` to everybody who may open the socket."""

    name = "weft.admin.v1.QuestionService"

    def __init__(self, questions: QuestionAPI) -> None:
        self._questions = questions

    def register(self, server: grpc.aio.Server) -> None:
        pb_grpc.add_QuestionServiceServicer_to_server(self, server)

    async def Ask(self, request: pb.AskRequest, context: object) -> pb.AskAnswer:
        try:
            addressee = Addressee(request.role, request.node)  # type: ignore[arg-type]  # checked there
        except FieldError as error:
            raise ValidationError("", 0, error.field, error.value, error.expected) from None
        found = await self._questions.ask(addressee, request.method, request.request, request.asker)
        return pb.AskAnswer(answer=found)
