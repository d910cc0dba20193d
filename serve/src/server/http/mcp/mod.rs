//! The Model Context Protocol over streamable HTTP, by its official SDK: tools with which an agent
//! draws.
//!
//! Every call stands alone, there are no sessions: a key and the limits hold as for any other
//! request, and what a tool gives back is what the other APIs give.

mod calls;
mod tools;

use std::sync::Arc;

use axum::Router;
use axum::http::request::Parts;
use rmcp::handler::server::ServerHandler;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, Implementation,
    ListToolsResult, PaginatedRequestParams, ServerCapabilities, ServerConfig, Tool,
};
use rmcp::service::RequestContext;
use rmcp::transport::streamable_http_server::session::never::NeverSessionManager;
use rmcp::transport::{StreamableHttpServerConfig, StreamableHttpService};
use rmcp::{ErrorData, RoleServer};

use self::calls::Call;
use super::guard::Client;
use crate::server::app::App;

/// What an agent is told of the server as a whole.
const INSTRUCTIONS: &str = "Draws images from a prompt in Chinese or English. `draw` waits for the images and \
    returns them; `create_job` returns at once, `get_job` tells how far a job is, and `get_picture` returns a \
    finished picture. The same arguments with the same seed draw the same image.";

/// The route of the protocol.
pub fn routes(app: &Arc<App>) -> Router<Arc<App>> {
    // Host, origin, key and size of a request were looked at before it comes here.
    let config = StreamableHttpServerConfig::default()
        .with_legacy_session_mode(false)
        .with_json_response(true)
        .disable_allowed_hosts()
        .with_max_request_body_bytes(usize::MAX);
    let app = Arc::clone(app);
    let agent = move || Ok(Tools { app: Arc::clone(&app) });
    let service = StreamableHttpService::new(agent, Arc::<NeverSessionManager>::default(), config);
    Router::new().route_service("/mcp", service)
}

/// The tools of a server.
struct Tools {
    app: Arc<App>,
}

impl ServerHandler for Tools {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
            .with_server_info(Implementation::new("hydit-serve", env!("CARGO_PKG_VERSION")))
            .with_instructions(INSTRUCTIONS)
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        tools::all(&self.app.settings.limits).into_iter().find(|tool| tool.name == name)
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult::with_all_items(tools::all(&self.app.settings.limits)))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let Some(tool) = self.get_tool(&request.name) else {
            let names = tools::all(&self.app.settings.limits);
            let names: Vec<&str> = names.iter().map(|tool| &*tool.name).collect();
            let message = format!("there is no tool of this name; there are {}", names.join(", "));
            return Err(ErrorData::invalid_params(message, None));
        };
        let parts = context.extensions.get::<Parts>();
        let client = parts.and_then(|parts| parts.extensions.get::<Client>()).cloned();
        let client = client.expect("the guard has let it through");
        let call = Call { app: &self.app, client, peer: &context.peer, meta: &context.meta };
        let arguments = request.arguments.unwrap_or_default();
        let answered = async {
            tools::check(&tool, &arguments)?;
            call.run(&tool.name, arguments).await
        };
        // A client that is gone, or does not want it any more, cancels what is drawn.
        let answered = tokio::select! {
            answered = answered => answered,
            () = context.ct.cancelled() => return Err(ErrorData::internal_error("cancelled", None)),
        };
        // What went wrong is for the agent to read, which a protocol error is not.
        let answer = answered
            .unwrap_or_else(|error| CallToolResult::error(vec![ContentBlock::text(error.message)]));
        Ok(answer.into())
    }
}
